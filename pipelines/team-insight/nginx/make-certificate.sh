#!/bin/sh
# For trials and tests: a certificate authority of its own, and a certificate from it for the names of the product, in nginx/ssl.
# In production the two files cert.pem and key.pem come from your authority. Leaves alone what is there.
#
#   nginx/make-certificate.sh [DIRECTORY]
set -eu
directory=${1:-$(dirname "$0")/ssl}
days=30

[ ! -e "$directory/cert.pem" ] || exit 0
mkdir -p "$directory"
cd "$directory"
umask 077

key() { openssl genpkey -quiet -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out "$1" 2>/dev/null \
    || openssl ecparam -genkey -name prime256v1 -noout -out "$1"; }

key authority.key
openssl req -new -x509 -key authority.key -days "$days" -subj "/CN=Team Insight trial authority" \
    -addext "keyUsage=critical,keyCertSign,cRLSign" -out ca.pem
key key.pem
openssl req -new -key key.pem -subj "/CN=team-insight.example.com" -out request.pem
cat >extensions <<EXTENSIONS
subjectAltName = DNS:team-insight.example.com, DNS:api.team-insight.example.com, DNS:localhost, IP:127.0.0.1
basicConstraints = critical, CA:false
extendedKeyUsage = serverAuth
EXTENSIONS
openssl x509 -req -in request.pem -CA ca.pem -CAkey authority.key -CAcreateserial -days "$days" -extfile extensions -out cert.pem 2>/dev/null
# Nothing else is signed with this authority.
rm -f authority.key request.pem extensions ca.srl
chmod 644 cert.pem ca.pem
