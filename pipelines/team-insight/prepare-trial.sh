#!/bin/sh
# For trials and tests: makes what an installation has and version control does not: .env with passwords of its own, backend/.env.production
# and a certificate. Leaves alone what is there.
set -eu
cd "$(dirname "$0")"
umask 077

word() { openssl rand -hex 32; }

if [ ! -e .env ]; then
    cat >.env <<SETTINGS
DB_NAME=teaminsight
DB_USER=teaminsight
DB_PASSWORD=$(word)
REDIS_PASSWORD=$(word)
SECRET_KEY=$(word)
FRONTEND_API_URL=https://team-insight.example.com/api
GRAFANA_ADMIN_PASSWORD=$(word)
ELASTIC_PASSWORD=$(word)
KIBANA_PASSWORD=$(word)
LOGSTASH_PASSWORD=$(word)
SETTINGS
fi
[ -e backend/.env.production ] || cp backend/.env.production.example backend/.env.production
nginx/make-certificate.sh
