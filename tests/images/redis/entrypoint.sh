#!/bin/sh
# A server started as root gives its data to the user redis and goes on as that user; anything else just runs.
set -eu

# `docker run redis --maxmemory 1gb` and `docker run redis /etc/redis.conf` mean the server.
case "${1:-}" in
-* | *.conf) set -- redis-server "$@" ;;
esac

if [ "$1" = redis-server ] && [ "$(id -u)" = 0 ]; then
    find . \! -user redis -exec chown redis '{}' +
    exec setpriv --reuid=redis --regid=redis --clear-groups "$0" "$@"
fi

umask 0077
exec "$@"
