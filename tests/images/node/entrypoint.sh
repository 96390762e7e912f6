#!/bin/sh
# Options, and words that are no command, are for node.
set -e

if [ "${1#-}" != "${1:-}" ] || [ -z "$(command -v "${1:-}")" ]; then
    set -- node "$@"
fi
exec "$@"
