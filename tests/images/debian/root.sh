#!/usr/bin/env bash
# The root filesystem under all images: Debian bookworm, small, with this machine's own package sources, certificates and registries.
# Those are read from the machine when the image is made; nothing of them is written down here.
#
#   root.sh inputs           prints what the result depends on besides the files of this directory
#   root.sh make DIRECTORY   makes it (as root)
set -euo pipefail

readonly SUITE=bookworm
readonly CERTIFICATES=/etc/ssl/certs/ca-certificates.crt

# One line a source: address suite component.
sources() {
    apt-get indextargets --format '$(REPO_URI) $(RELEASE) $(COMPONENT) $(ORIGIN)' 'Created-By: Packages' |
        awk -v suite="$SUITE" '$4 == "Debian" && index($2, suite) == 1 { print $1, $2, $3 }' | sort -u
}

mirror() {
    sources | awk -v suite="$SUITE" '$2 == suite && $3 == "main" { print $1; exit }'
}

# Where pip and npm look, if this machine says something else than they do by themselves.
python_index() { printf '%s' "${PIP_INDEX_URL:-$(pip config get global.index-url 2>/dev/null || true)}"; }
node_registry() { printf '%s' "${NPM_CONFIG_REGISTRY:-${npm_config_registry:-}}"; }

inputs() {
    sources
    sha256sum <"$CERTIFICATES"
    python_index
    node_registry
}

make() { # DIRECTORY
    local root=$1 mirror
    mirror=$(mirror)
    [ -n "$mirror" ] || {
        echo "no source of Debian $SUITE is known on this machine: apt-get update, then again" >&2
        exit 1
    }
    debootstrap --variant=minbase --include=ca-certificates,busybox "$SUITE" "$root" "$mirror"
    settings "$root"
    # Kept, so that no image has to fetch them again; an image that finds them too old fetches new ones (install-packages).
    chroot "$root" apt-get -qq update
    rm -rf "$root"/var/cache/apt/archives/*.deb "$root"/var/log/* "$root"/usr/share/{doc,man,locale,info}/*
}

settings() { # ROOT
    local root=$1
    sources | sed 's/^/deb /' >"$root/etc/apt/sources.list"
    install -m 644 "$CERTIFICATES" "$root$CERTIFICATES"
    install -m 644 "$(dirname "$0")/dpkg.conf" "$root/etc/dpkg/dpkg.cfg.d/tests"
    install -m 755 "$(dirname "$0")/install-packages" "$root/usr/local/sbin/install-packages"
    # No service starts while packages are installed.
    printf '#!/bin/sh\nexit 101\n' >"$root/usr/sbin/policy-rc.d"
    chmod 755 "$root/usr/sbin/policy-rc.d"
    [ -z "$(python_index)" ] || printf '[global]\nindex-url = %s\n' "$(python_index)" >"$root/etc/pip.conf"
    if [ -n "$(node_registry)" ]; then
        printf 'registry=%s\n' "$(node_registry)" >"$root/root/.npmrc"
        printf 'npmRegistryServer: "%s"\n' "$(node_registry)" >"$root/root/.yarnrc.yml"
    fi
}

case "${1:-}" in
inputs) inputs ;;
make) make "${2:?where to}" ;;
*) echo "usage: root.sh inputs | make DIRECTORY" >&2 && exit 64 ;;
esac
