#!/bin/bash
# Gives the users of Kibana and Logstash their passwords. Can run any number of times.
set -euo pipefail

readonly SERVER=http://elasticsearch:9200

# The password of elastic goes through a file that only curl reads, not through the list of processes.
put() { # METHOD PATH DOCUMENT
    curl --fail --silent --show-error --output /dev/null --config <(printf 'user = "elastic:%s"' "$ELASTIC_PASSWORD") \
        --request "$1" --header 'Content-Type: application/json' --data-binary @- "$SERVER$2" <<<"$3"
}

put POST /_security/user/kibana_system/_password "{\"password\": \"$KIBANA_PASSWORD\"}"
put PUT /_security/role/logstash_writer '{
    "cluster": ["monitor", "manage_index_templates"],
    "indices": [{"names": ["team-insight-*"], "privileges": ["create_index", "create_doc", "auto_configure"]}]
}'
put PUT /_security/user/logstash_writer "{\"password\": \"$LOGSTASH_PASSWORD\", \"roles\": [\"logstash_writer\"]}"
echo "the users kibana_system and logstash_writer have their passwords"
