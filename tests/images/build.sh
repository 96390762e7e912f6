#!/usr/bin/env bash
# Makes the base images that pipelines/team-insight names, under their real names, from Debian packages.
#
#   tests/images/build.sh             all of them
#   tests/images/build.sh redis nginx only these (and what they stand on)
#
# An image that exists with the same inputs is left alone, so a second call costs about a second. The engine is the one the docker
# client finds (DOCKER_HOST). Prints one line an image; everything else goes to a log that is shown when something fails.
set -euo pipefail
cd "$(dirname "$0")"

readonly INPUTS_LABEL=windlass.tests.inputs
readonly BASE=windlass-tests/debian:bookworm
# The classic builder: the one every Docker Engine has, and the one Windlass itself talks to.
export DOCKER_BUILDKIT=0

# name       image                       directory   stands on
readonly IMAGES="
python        python:3.11-slim            python      debian
postgres      postgres:15-alpine          postgres    debian
redis         redis:7-alpine              redis       debian
nginx         nginx:alpine                nginx       debian
haproxy       haproxy:2.6-alpine          haproxy     debian
node          node:18-alpine              node        debian
prometheus    prom/prometheus:latest      prometheus  debian
grafana       grafana/grafana:latest      product     python
elasticsearch elasticsearch:8.11.0        product     python
logstash      logstash:8.11.0             product     python
kibana        kibana:8.11.0               product     python
"

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

die() {
    printf 'tests/images/build.sh: %s\n' "$1" >&2
    [ -z "${2:-}" ] || printf 'help: %s\n' "$2" >&2
    exit 1
}

field() { # NAME COLUMN
    awk -v name="$1" -v column="$2" '$1 == name { print $column }' <<<"$IMAGES"
}

# One digest over the names and contents of files, and over whatever else is given on standard input.
digest_of() { # DIRECTORY
    {
        cat
        (cd "$1" && find . -type f -print0 | sort -z | xargs -0 sha256sum)
    } | sha256sum | cut -d' ' -f1
}

inputs_in_engine() { # IMAGE
    docker image inspect --format "{{ index .Config.Labels \"$INPUTS_LABEL\" }}" "$1" 2>/dev/null || true
}

# Runs one step with its output in a log; a failure shows the log's end.
logged() { # NAME COMMAND...
    local name=$1
    shift
    "$@" >"$work/$name.log" 2>&1 || {
        tail -n 40 "$work/$name.log" >&2
        die "making $name failed"
    }
}

report() { # IMAGE WHAT SECONDS
    printf '%-24s %s in %s s\n' "$1" "$2" "$3"
}

make_base() {
    local started=$SECONDS
    base_inputs=$(debian/root.sh inputs | digest_of debian)
    if [ "$(inputs_in_engine "$BASE")" = "$base_inputs" ]; then
        report "$BASE" "is there" 0
        return
    fi
    logged debian debian/root.sh make "$work/root"
    logged debian sh -c "tar -C '$work/root' --numeric-owner -c . | docker import \
        --change 'LABEL $INPUTS_LABEL=$base_inputs' --change 'CMD [\"sh\"]' - '$BASE'"
    rm -rf "$work/root"
    report "$BASE" "made" "$((SECONDS - started))"
}

# What an image is made from: its directory, what it stands on, and its own name (one directory can make several images).
inputs_of() { # NAME
    local below
    below=$(field "$1" 4)
    if [ "$below" = debian ]; then below=$base_inputs; else below=$(inputs_of "$below"); fi
    printf '%s %s\n' "$below" "$1" | digest_of "$(field "$1" 3)"
}

make_image() { # NAME
    local name=$1 image directory inputs started=$SECONDS
    image=$(field "$name" 2) directory=$(field "$name" 3) inputs=$(inputs_of "$name")
    if [ "$(inputs_in_engine "$image")" = "$inputs" ]; then
        report "$image" "is there" 0
        return
    fi
    refuse_to_replace_a_real_one "$image"
    cp -r "$directory" "$work/context-$name"
    [ ! -x "$directory/fetch.sh" ] || logged "$name" "$directory/fetch.sh" "$work/context-$name"
    logged "$name" docker build --force-rm --label "$INPUTS_LABEL=$inputs" --build-arg "BASE=$BASE" --build-arg "PRODUCT=$name" \
        --tag "$image" "$work/context-$name"
    report "$image" "made" "$((SECONDS - started))"
}

# On somebody's own engine these names may be the real images: never take them away.
refuse_to_replace_a_real_one() { # IMAGE
    if docker image inspect "$1" >/dev/null 2>&1 && [ -z "$(inputs_in_engine "$1")" ]; then
        die "the engine has an image $1 that these tests did not make" \
            "use another engine (DOCKER_HOST=unix:///path/to/its.sock), or remove the image yourself: docker image rm $1"
    fi
}

# Two at a time: while one waits for the network the other unpacks.
make_images() { # NAME...
    local name failed=0
    for name in "$@"; do
        while [ "$(jobs -rp | wc -l)" -ge 2 ]; do wait -n || failed=1; done
        [ "$failed" = 0 ] || break
        make_image "$name" &
    done
    while [ -n "$(jobs -p)" ]; do wait -n || failed=1; done
    [ "$failed" = 0 ] || die "not all images could be made"
}

docker version >/dev/null 2>&1 || die "no Docker Engine answers" "start one, or say where it is: DOCKER_HOST=unix:///path/to/its.sock"
wanted=("$@")
[ ${#wanted[@]} -gt 0 ] || mapfile -t wanted < <(awk 'NF { print $1 }' <<<"$IMAGES")
for name in "${wanted[@]}"; do
    [ -n "$(field "$name" 2)" ] || die "there is no image called $name here" "one of:$(awk 'NF { printf " %s", $1 }' <<<"$IMAGES")"
done

first=() second=()
for name in "${wanted[@]}"; do
    below=$(field "$name" 4)
    if [ "$below" = debian ]; then
        first+=("$name")
    else
        first+=("$below")
        second+=("$name")
    fi
done
mapfile -t first < <(printf '%s\n' "${first[@]}" | awk '!seen[$0]++')

make_base
make_images "${first[@]}"
[ ${#second[@]} = 0 ] || make_images "${second[@]}"
