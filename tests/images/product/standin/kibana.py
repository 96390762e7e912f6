"""Port 5601: available as long as Elasticsearch lets it in with the user and password it was given."""

import base64
import os
import urllib.request

from standin.web import Answer, serve, setting

# Longer than one answer of a busy Elasticsearch, shorter than the health check that asks here.
ASK_FOR = 3.0


def elasticsearch_level() -> str:
    request = urllib.request.Request(os.environ.get("ELASTICSEARCH_HOSTS", "http://elasticsearch:9200"))
    user, password = setting("ELASTICSEARCH_USERNAME"), setting("ELASTICSEARCH_PASSWORD")
    if user:
        request.add_header("Authorization", "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode())
    try:
        with urllib.request.urlopen(request, timeout=ASK_FOR):
            return "available"
    except OSError:
        return "critical"


def make_server():
    def routes(method: str, path: str, caller: tuple[str, str], body: bytes) -> Answer:
        if path != "/api/status":
            return 404, {"statusCode": 404, "error": "Not Found"}
        level = elasticsearch_level()
        return (200 if level == "available" else 503), {"name": "stand-in", "status": {"overall": {"level": level}}}

    return serve(5601, routes)
