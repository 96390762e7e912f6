"""Port 3000: health, and an API that lets only the administrator in."""

import os

from standin.web import Answer, same, serve, setting


def make_server():
    administrator = setting("GF_SECURITY_ADMIN_USER", "admin"), setting("GF_SECURITY_ADMIN_PASSWORD", "admin", "__FILE")

    def routes(method: str, path: str, caller: tuple[str, str], body: bytes) -> Answer:
        if path == "/api/health":
            return 200, {"database": "ok", "version": "stand-in"}
        if path == "/login":
            return 200, {"title": "Grafana (stand-in)"}
        if path == "/api/org":
            known = same(caller[0], administrator[0]) and same(caller[1], administrator[1])
            return (200, {"id": 1, "name": "Main Org."}) if known else (401, {"message": "Invalid username or password"})
        return 404, {"message": "Not found"}

    return serve(int(os.environ.get("GF_SERVER_HTTP_PORT", "3000")), routes)
