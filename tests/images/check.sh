#!/usr/bin/env bash
# Holds the base images to what README.md says of them, under the hardening that Windlass gives every container.
# Starts one container at a time, on no network but its own, and removes it. Ends with "N passed, N failed".
set -uo pipefail

readonly HARDENED=(--cap-drop ALL --security-opt no-new-privileges --cap-add CHOWN --cap-add SETUID --cap-add SETGID
    --cap-add DAC_OVERRIDE --cap-add FOWNER --cap-add KILL --cap-add NET_BIND_SERVICE)
readonly NAME=windlass-image-check-$$

passed=0 failed=0
work=$(mktemp -d)
trap 'docker rm --force --volumes "$NAME" >/dev/null 2>&1; rm -rf "$work"' EXIT

check() { # WHAT COMMAND...
    local what=$1
    shift
    if "$@" >"$work/output" 2>&1; then
        passed=$((passed + 1)) && printf 'ok      %s\n' "$what"
    else
        failed=$((failed + 1)) && printf 'FAILED  %s\n' "$what" && tail -n 20 "$work/output"
        docker logs --tail 20 "$NAME" 2>&1
    fi
}

start() { # ARGUMENTS OF docker run...
    docker rm --force --volumes "$NAME" >/dev/null 2>&1
    docker run --detach --name "$NAME" "${HARDENED[@]}" "$@" >"$work/start" 2>&1 || cat "$work/start"
}
within() { docker exec "$NAME" "$@"; }
# Whatever the command exits with: a refusal has its words too.
says() { # TEXT COMMAND...
    local text=$1
    shift
    "$@" >"$work/said" 2>&1 || true
    grep -qF -- "$text" "$work/said" || { cat "$work/said" && return 1; }
}
# Asks every quarter second, for 30 seconds.
soon() {
    local try
    for try in $(seq 120); do
        "$@" >"$work/try" 2>&1 && return 0
        sleep 0.25
    done
    echo "not within 30 s:" && cat "$work/try" && return 1
}
user_of() { # PATTERN: the numeric user of the first process with this command line
    within sh -c 'for p in /proc/[0-9]*; do tr "\0" " " <$p/cmdline | grep -q -- "$1" && stat -c %u $p && exit; done' sh "[${1:0:1}]${1:1}"
}

mkdir "$work/initdb"
echo 'CREATE TABLE seeded AS SELECT 41 + 1 AS answer;' >"$work/initdb/1.sql"
printf 'secret word' >"$work/password" && chmod 400 "$work/password"
query() { within env PGPASSWORD='secret word' psql -h 127.0.0.1 -U owner -d product -Atc "$1"; }

start -e POSTGRES_USER=owner -e POSTGRES_DB=product -e POSTGRES_PASSWORD_FILE=/run/secrets/password \
    -v "$work/password:/run/secrets/password:ro" -v "$work/initdb:/docker-entrypoint-initdb.d:ro" postgres:15-alpine
check "postgres: starts, makes user and database from POSTGRES_*, runs initdb.d" soon says 42 query 'SELECT answer FROM seeded'
check "postgres: runs as uid 70" says 70 user_of postgres
check "postgres: the password is not in the server's environment" sh -c "! docker exec $NAME sh -c 'tr \"\\0\" \"\\n\" </proc/1/environ' | grep -q 'secret word'"
check "postgres: a wrong password is refused" says "password authentication failed" \
    within sh -c 'PGPASSWORD=no psql -h "$(hostname)" -U owner -d product -c ""'
docker restart "$NAME" >/dev/null 2>&1
check "postgres: a restart keeps the data" soon says 42 query 'SELECT answer FROM seeded'
start postgres:15-alpine
check "postgres: refuses to make a cluster without a password" soon says "superuser password is not specified" docker logs "$NAME"

start redis:7-alpine redis-server --requirepass word
check "redis: answers, with its password only" soon says PONG within env REDISCLI_AUTH=word redis-cli ping
check "redis: without a password it refuses" says NOAUTH within redis-cli ping
check "redis: runs as uid 999" says 999 user_of redis-server
check "redis: saves in /data" says OK within env REDISCLI_AUTH=word redis-cli save
check "redis: the file is there" within test -s /data/dump.rdb

start nginx:alpine
check "nginx: serves on port 80" soon says "nginx works" within wget -qO- http://127.0.0.1/
check "nginx: workers run as uid 101" says 101 user_of "nginx: worker"
check "nginx: its log is the container's" soon says '"GET / HTTP/1.1" 200' docker logs "$NAME"
docker stop --time 10 "$NAME" >/dev/null 2>&1
check "nginx: stops in order" says 0 docker inspect --format '{{.State.ExitCode}}' "$NAME"

printf 'defaults\n  mode http\n  timeout client 5s\n  timeout server 5s\n  timeout connect 5s\nfrontend f\n  bind :8080\n  http-request return status 200 content-type text/plain string routed\n' >"$work/haproxy.cfg"
start -v "$work/haproxy.cfg:/usr/local/etc/haproxy/haproxy.cfg:ro" haproxy:2.6-alpine
check "haproxy: reads /usr/local/etc/haproxy/haproxy.cfg" soon says routed within wget -qO- http://127.0.0.1:8080/
check "haproxy: runs as uid 99" says 99 user_of haproxy
check "haproxy: nc is there" soon within nc -w 1 127.0.0.1 8080 -e true
check "haproxy: is 2.6" says "version 2.6." within haproxy -v

start python:3.11-slim sleep 600
check "python: is 3.11" says "Python 3.11." within python --version
check "python: pip installs with --user" within pip install --quiet --user six==1.17.0
check "python: what it installed is found" says 1.17.0 within python -c 'import six; print(six.__version__)'
check "python: headers are there" within python -c 'import pathlib, sysconfig; assert (pathlib.Path(sysconfig.get_path("include")) / "Python.h").exists()'

start node:18-alpine sleep 600
check "node: is 18" says "v18." within node --version
check "node: yarn is 4" says "4." within yarn --version
check "node: npm reaches its registry" within npm view is-number@7.0.0 version
check "node: wget is there" says BusyBox within wget --help
check "node: addgroup as in BusyBox" within addgroup -g 1001 -S nodejs
check "node: adduser as in BusyBox" within adduser -S nextjs -u 1001
check "node: the user is there" says uid=1001 within id nextjs

printf 'scrape_configs: []\n' >"$work/prometheus.yml" && chmod -R a+rX "$work"
start -v "$work/prometheus.yml:/etc/prometheus/prometheus.yml:ro" prom/prometheus:latest --config.file=/etc/prometheus/prometheus.yml --storage.tsdb.path=/prometheus
check "prometheus: is healthy on port 9090" soon says Healthy within wget -qO- http://127.0.0.1:9090/-/healthy
check "prometheus: runs as nobody" says 65534 user_of prometheus

start -e GF_SECURITY_ADMIN_PASSWORD=word grafana/grafana:latest
check "grafana: is healthy on port 3000" soon says '"database": "ok"' within curl -fsS http://127.0.0.1:3000/api/health
check "grafana: knows its administrator" says "Main Org." within curl -fsS -u admin:word http://127.0.0.1:3000/api/org
check "grafana: knows nobody else" says "401" within curl -sS -o /dev/null -w '%{http_code}' -u admin:admin http://127.0.0.1:3000/api/org

start -e discovery.type=single-node -e ELASTIC_PASSWORD=word elasticsearch:8.11.0
check "elasticsearch: is healthy on port 9200" soon says green within curl -fsS -u elastic:word http://127.0.0.1:9200/_cluster/health
check "elasticsearch: lets nobody in without a password" says 401 within curl -sS -o /dev/null -w '%{http_code}' http://127.0.0.1:9200/
start logstash:8.11.0
check "logstash: refuses to start without a pipeline" soon says "No config files found" docker logs "$NAME"
start kibana:8.11.0
check "kibana: says so when it cannot reach Elasticsearch" soon says '"critical"' within curl -sS http://127.0.0.1:5601/api/status

printf '%s passed, %s failed\n' "$passed" "$failed"
[ "$failed" = 0 ]
