"""Stand-ins for Grafana, Elasticsearch, Logstash and Kibana: ports, health and log-in of the originals, nothing of what they do."""
