#!/bin/sh
set -eu

case "${1:-}" in
-*) set -- haproxy "$@" ;;
esac

# -W: a master that passes signals on to its workers; -db: in the foreground.
if [ "$1" = haproxy ]; then
    shift
    set -- haproxy -W -db "$@"
fi
exec "$@"
