#!/usr/bin/env bash
# Brings pipelines/team-insight up with docker-compose, without Windlass, on a copy of its files, and holds it to what the guide promises:
# health, headers, redirects, limits, migrations, uploads, metrics, secrets from files, the monitoring and logging stacks.
# Needs the base images (tests/images/build.sh). Ends with "N passed, N failed"; everything it made is removed, but for the images.
set -uo pipefail
cd "$(dirname "$0")/../.."

readonly PROJECT=windlass-check-$$
readonly HOST=team-insight.example.com
work=$(mktemp -d)
cp -r pipelines/team-insight "$work/stack"
cd "$work/stack" || exit 1
# An installation in the source tree is not this test's.
rm -rf .env backend/.env.production nginx/ssl

export COMPOSE_PROJECT_NAME=$PROJECT DOCKER_BUILDKIT=0 COMPOSE_DOCKER_CLI_BUILD=0
export REGISTRY=windlass-check VERSION=1.0.0
# Any free port, on loopback only.
export HTTP_PORT=127.0.0.1:0 HTTPS_PORT=127.0.0.1:0 PROMETHEUS_PORT=0 GRAFANA_PORT=0 KIBANA_PORT=0

readonly FRONT=(-f docker-compose.yml -f docker-compose.prod.yml -f docker-compose.blue-green.yml)
readonly SECRET=(-f docker-compose.secrets.yml)
readonly AROUND=(-f docker-compose.monitoring.yml -f docker-compose.logging.yml)
compose() { docker-compose "$@" 2>>"$work/compose.log"; }

passed=0 failed=0
finish() {
    compose "${FRONT[@]}" "${SECRET[@]}" "${AROUND[@]}" down --volumes --timeout 5 >/dev/null
    rm -rf "$work"
}
trap finish EXIT

check() { # WHAT COMMAND...
    local what=$1
    shift
    if "$@" >"$work/output" 2>&1; then
        passed=$((passed + 1)) && printf 'ok      %s\n' "$what"
    else
        failed=$((failed + 1)) && printf 'FAILED  %s\n' "$what" && tail -n 20 "$work/output"
    fi
}
must() { # WHAT COMMAND...: without it nothing that follows means anything
    local before=$failed
    check "$@"
    [ "$failed" = "$before" ] || { tail -n 60 "$work/compose.log" && compose "${FRONT[@]}" logs --tail 30 && summary && exit 1; }
}
summary() { printf '%s passed, %s failed\n' "$passed" "$failed"; }

says() { # TEXT COMMAND...
    local text=$1
    shift
    "$@" >"$work/said" 2>&1 || true
    grep -qiF -- "$text" "$work/said" || { echo "no '$text' in:" && cat "$work/said" && return 1; }
}
says_not() { ! says "$@"; }
soon() { # COMMAND...: asks for two minutes
    local try
    for try in $(seq 240); do
        "$@" >"$work/try" 2>&1 && return 0
        sleep 0.5
    done
    echo "not within two minutes:" && cat "$work/try" && return 1
}
healthy() { # SERVICE...
    local service ids
    for service in "$@"; do
        ids=$(compose "${FRONT[@]}" "${AROUND[@]}" ps -q "$service")
        [ -n "$ids" ] || { echo "$service has no container" && return 1; }
        # shellcheck disable=SC2086 # one word a container
        docker inspect --format "$service {{.State.Health.Status}}" $ids | grep -v ' healthy$' && return 1
    done
    return 0
}
get() { # PATH CURL-ARGUMENT...
    local path=$1
    shift
    curl --silent --show-error --max-time 20 --cacert nginx/ssl/ca.pem --resolve "$HOST:$https:127.0.0.1" "$@" "https://$HOST:$https$path"
}
code() { get "$@" --output /dev/null --write-out '%{http_code}\n'; }
in_backend() { docker exec "$(compose "${FRONT[@]}" ps -q backend | head -n 1)" "$@"; }
in_service() { local service=$1 && shift && docker exec "$(compose "${FRONT[@]}" "${AROUND[@]}" ps -q "$service")" "$@"; }
# As many requests at once as asked for; prints how many got each answer.
burst() { # COUNT PATH
    get "$2?[1-$1]" --no-progress-meter --parallel --parallel-max 30 --output /dev/null --write-out '%{http_code}\n' | sort | uniq -c
}
at_least() { # COUNT STATUS FILE
    awk -v count="$1" -v status="$2" '$2 == status && $1 >= count { found = 1 } END { exit !found }' "$3" || { cat "$3" && return 1; }
}

must "a trial's settings and certificate are made" ./prepare-trial.sh
echo 'LOG_SHIPPING=logstash:12201' >>backend/.env.production
mkdir secret-files
while IFS='=' read -r name value; do
    case $name in DB_PASSWORD | REDIS_PASSWORD | SECRET_KEY)
        printf '%s' "$value" >"secret-files/${name,,}" ;;
    esac
done <.env
printf 'no space, no client' >secret-files/backlog_client_secret
chmod -R a+rX secret-files
# An external secret is nothing docker-compose can mount; here the same names are files.
sed -i '/^secrets:/,/^services:/{/external: true/d}' docker-compose.secrets.yml
for name in db_password redis_password secret_key backlog_client_secret; do
    sed -i "s|^  $name:\$|  $name: { file: ./secret-files/$name }|" docker-compose.secrets.yml
done

must "docker-compose reads the files" docker-compose "${FRONT[@]}" "${AROUND[@]}" config --quiet
must "the guide's Dockerfiles build backend and frontend" compose "${FRONT[@]}" build
check "no secret is in the backend's image" says_not env.production docker run --rm "$REGISTRY/team-insight-backend:$VERSION" ls -a /app
must "the databases start" compose "${FRONT[@]}" up -d postgres redis
must "the databases are healthy" soon healthy postgres redis
must "the migrations run" compose "${FRONT[@]}" run --rm backend alembic upgrade head
check "they are done" says "0003 (head)" compose "${FRONT[@]}" run --rm backend alembic current
must "everything starts" compose "${FRONT[@]}" up -d
must "everything is healthy" soon healthy nginx router frontend backend postgres redis
https=$(compose "${FRONT[@]}" port nginx 443 | cut -d: -f2)
http=$(compose "${FRONT[@]}" port nginx 80 | cut -d: -f2)

check "before the first deployment the router says that no colour is live" says "no colour is live" get /health
# What Windlass does at the first deployment (router/README.md).
live() { printf 'add map /router/live.map backend blue\\ 1\\ by-hand\n' | docker exec -i "$(compose "${FRONT[@]}" ps -q router)" nc 127.0.0.1 9999; }
check "blue gets the traffic" live
check "/health is JSON and says healthy" soon says '"status":"healthy"' get /health
check "every answer says version and colour" says "x-service-version: 1.0.0" get /api/v1/version --include
check "the colour is blue" says "x-service-color: blue" get /api/v1/version --include

for header in "x-frame-options: SAMEORIGIN" "x-content-type-options: nosniff" "x-xss-protection: 1; mode=block" "strict-transport-security: max-age=31536000; includeSubDomains"; do
    for path in /api/v1/version /api/v1/users/me / /health /robots.txt; do
        check "$path has the header ${header%%:*}" says "$header" get "$path" --include
    done
done
check "the version of nginx is not told" says_not "nginx/" get / --include
check "http is sent to https" says "location: https://$HOST/a/b?c=d" curl -sS --include --resolve "$HOST:$http:127.0.0.1" "http://$HOST:$http/a/b?c=d"
check "with 301" says 301 curl -sS -o /dev/null -w '%{http_code}' "http://127.0.0.1:$http/"
check "TLS 1.1 is refused" says_not 200 code / --tls-max 1.1
check "HTTP/2 is spoken" says "HTTP/2 200" get / --include --http2
check "metrics are not for the outside" says_not http_requests_total get /metrics

check "the front page comes from Next.js" says "Team Insight" get /
asset=$(get / | grep -o '/_next/static/[^"]*\.js' | head -n 1)
check "its build's files are there" says 200 code "$asset"
check "and may be kept for ever" says "cache-control: public, max-age=31536000, immutable" get "$asset" --include
check "with the security headers" says "x-frame-options" get "$asset" --include
check "the build argument is in them" sh -c "docker run --rm $REGISTRY/team-insight-frontend:$VERSION sh -c 'grep -rlF https://$HOST/api .next/static' | grep ."
check "the frontend's own health" says healthy in_service frontend wget -qO- http://127.0.0.1:3000/health

check "projects can be read by everybody" says 200 code /api/v1/projects
check "who asks is not known without a token" says 401 code /api/v1/users/me
check "the connection's status neither" says 401 code /api/v1/sync/connection/status
token=$(in_backend python -m app.token --account checker)
readonly BEARER=(--header "Authorization: Bearer $token")
check "with a token it is" says checker get /api/v1/users/me "${BEARER[@]}"
check "a project is made" says 201 code /api/v1/projects "${BEARER[@]}" --json '{"key": "CHECK", "name": "確認"}'
check "and found, in Japanese" says 確認 get /api/v1/projects
check "twice is a conflict" says 409 code /api/v1/projects "${BEARER[@]}" --json '{"key": "CHECK", "name": "again"}'
sleep 3 # the limit of 10 a second has let 20 pass at once; those are given back over time
head -c 3000000 /dev/urandom >"$work/upload"
check "a file is uploaded" says 201 code /api/v1/uploads/data.bin "${BEARER[@]}" --upload-file "$work/upload"
get /api/v1/uploads/data.bin "${BEARER[@]}" --output "$work/download"
check "and comes back byte for byte" cmp "$work/upload" "$work/download"
head -c 21000000 /dev/zero >"$work/large"
check "20 MB are the limit" says 413 code /api/v1/uploads/large.bin "${BEARER[@]}" --upload-file "$work/large"
check "log-in says that no Backlog space is configured" says "no Backlog space" get /api/v1/auth/login
check "log-out" says 204 code /api/v1/auth/logout "${BEARER[@]}" --request POST
check "ends the token" says 401 code /api/v1/users/me "${BEARER[@]}"

sleep 3
burst 60 /api/v1/version >"$work/burst"
check "the API answers a burst of 20" at_least 20 200 "$work/burst"
check "and refuses the rest with 429" at_least 10 429 "$work/burst"
burst 30 /api/v1/auth/login >"$work/burst"
check "log-in is limited more" at_least 20 429 "$work/burst"
burst 100 /health >"$work/burst"
check "/health is not limited" at_least 100 200 "$work/burst"

setting() { in_service postgres sh -c "PGPASSWORD=\$POSTGRES_PASSWORD psql -U \$POSTGRES_USER -d \$POSTGRES_DB -Atc 'SHOW $1'"; }
check "postgresql.conf counts" says 1536MB setting max_wal_size
check "init.sql has run" says 5min setting idle_in_transaction_session_timeout
check "redis.conf counts" says allkeys-lru in_service redis redis-cli config get maxmemory-policy
check "Redis wants its password" says NOAUTH in_service redis env -u REDISCLI_AUTH redis-cli ping
check "the health check of Redis leaves no key" says_not ping in_service redis redis-cli keys ping

must "monitoring and logging start" compose "${FRONT[@]}" "${AROUND[@]}" up -d prometheus grafana elasticsearch logstash kibana
check "and are healthy" soon healthy prometheus grafana elasticsearch logstash kibana
targets() { in_service prometheus wget -qO- 'http://127.0.0.1:9090/api/v1/query?query=sum(up{job="backend",color="blue"})'; }
check "Prometheus scrapes both replicas" soon says '"2"' targets
for metric in http_requests_total http_request_duration_seconds_count active_users sync_operations_total; do
    check "it has $metric" soon says "\"$metric\"" in_service prometheus wget -qO- "http://127.0.0.1:9090/api/v1/query?query=$metric"
done
check "Grafana does not know admin/admin" says 401 in_service grafana curl -sS -o /dev/null -w '%{http_code}' -u admin:admin http://127.0.0.1:3000/api/org
check "Kibana got into Elasticsearch" says '"available"' in_service kibana curl -sS http://127.0.0.1:5601/api/status
check "nobody else gets in" says 401 in_service elasticsearch curl -sS -o /dev/null -w '%{http_code}' http://127.0.0.1:9200/
events() { code /api/v1/version && in_service logstash curl -sS http://127.0.0.1:9600/_node/stats/events; }
check "the backend's log arrives at Logstash" soon says_not '"in": 0' events

must "the passwords move into files" compose "${FRONT[@]}" "${SECRET[@]}" up -d postgres redis backend
check "and everything is healthy again" soon healthy postgres redis backend
check "the project is still there" soon says 確認 get /api/v1/projects
check "no password is in the containers' environments" says_not "$(cat secret-files/db_password)" docker inspect "$(compose "${FRONT[@]}" ps -q postgres)" "$(compose "${FRONT[@]}" ps -q backend | head -n 1)"

for service in nginx frontend backend router redis postgres; do
    container=$(compose "${FRONT[@]}" ps -q "$service" | head -n 1)
    docker stop --time 40 "$container" >/dev/null
    check "$service stops when it is asked to" says_not 137 docker inspect --format '{{.State.ExitCode}}' "$container"
done

summary
[ "$failed" = 0 ]
