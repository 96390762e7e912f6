#!/bin/sh
# Before nginx starts, what lies in /docker-entrypoint.d runs in the order of its names: *.envsh is read in, *.sh is executed.
set -eu

if [ "$1" = nginx ] || [ "$1" = nginx-debug ]; then
    for file in /docker-entrypoint.d/*; do
        case $file in
        *.envsh) [ ! -x "$file" ] || . "$file" ;;
        *.sh) [ ! -x "$file" ] || "$file" ;;
        esac
    done
fi
exec "$@"
