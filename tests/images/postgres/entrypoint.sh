#!/bin/bash
# The behaviour people rely on in the original's entrypoint: an empty PGDATA becomes a cluster with POSTGRES_USER, _PASSWORD and
# _DB, then everything in /docker-entrypoint-initdb.d runs, all before the server listens on the network.
set -euo pipefail

fail() {
    echo "Error: $*" >&2
    exit 1
}

# NAME_FILE names a file that holds what NAME would hold; both at once is a mistake.
from_file() { # NAME DEFAULT
    local file_variable=$1_FILE
    if [ -n "${!1:-}" ] && [ -n "${!file_variable:-}" ]; then
        fail "both $1 and $file_variable are set (but are exclusive)"
    fi
    if [ -n "${!file_variable:-}" ]; then
        export "$1=$(<"${!file_variable}")"
    elif [ -z "${!1:-}" ]; then
        export "$1=$2"
    fi
    unset "$file_variable"
}

create_cluster() {
    if [ -z "$POSTGRES_PASSWORD" ] && [ "${POSTGRES_HOST_AUTH_METHOD:-}" != trust ]; then
        fail "Database is uninitialized and superuser password is not specified: set POSTGRES_PASSWORD to a non-empty value"
    fi
    # shellcheck disable=SC2086 # several arguments are meant
    initdb --username="$POSTGRES_USER" --pwfile=<(printf '%s\n' "${POSTGRES_PASSWORD:-unused}") ${POSTGRES_INITDB_ARGS:-}
    printf '\nhost all all all %s\n' "${POSTGRES_HOST_AUTH_METHOD:-scram-sha-256}" >>"$PGDATA/pg_hba.conf"
}

# Only over the socket: nobody from outside sees a half-made database.
with_private_server() { # COMMAND...
    pg_ctl -D "$PGDATA" -o "-c listen_addresses='' -p 5432" -w start
    PGHOST=/run/postgresql "$@"
    pg_ctl -D "$PGDATA" -m fast -w stop
}

as_owner() { # PSQL-ARGUMENT...
    psql --variable ON_ERROR_STOP=1 --no-password --no-psqlrc --username "$POSTGRES_USER" "$@"
}

fill_cluster() {
    if [ "$POSTGRES_DB" != postgres ]; then
        as_owner --dbname postgres --variable name="$POSTGRES_DB" <<<'CREATE DATABASE :"name";'
    fi
    local file
    for file in /docker-entrypoint-initdb.d/*; do
        echo "$0: $file"
        case $file in
        *.sh) if [ -x "$file" ]; then "$file"; else . "$file"; fi ;;
        *.sql) as_owner --dbname "$POSTGRES_DB" --file "$file" ;;
        *.sql.gz) gunzip --stdout "$file" | as_owner --dbname "$POSTGRES_DB" ;;
        */\*) echo "$0: nothing to run" ;;
        *) echo "$0: ignored" ;;
        esac
    done
}

[ "${1:0:1}" != - ] || set -- postgres "$@"

if [ "$1" = postgres ] && [ "$(id -u)" = 0 ]; then
    mkdir -p "$PGDATA"
    chmod 700 "$PGDATA"
    find "$PGDATA" \! -user postgres -exec chown postgres '{}' +
    find /run/postgresql \! -user postgres -exec chown postgres '{}' +
    export HOME=/var/lib/postgresql
    # Secret files may be readable by root only: they are read before the change of user.
    from_file POSTGRES_PASSWORD ''
    from_file POSTGRES_USER postgres
    from_file POSTGRES_DB "$POSTGRES_USER"
    exec setpriv --reuid=postgres --regid=postgres --init-groups "$0" "$@"
fi

if [ "$1" = postgres ] && [ ! -s "$PGDATA/PG_VERSION" ]; then
    from_file POSTGRES_PASSWORD ''
    from_file POSTGRES_USER postgres
    from_file POSTGRES_DB "$POSTGRES_USER"
    create_cluster
    with_private_server fill_cluster
    echo "PostgreSQL init process complete; ready for start up."
fi
unset POSTGRES_PASSWORD
exec "$@"
