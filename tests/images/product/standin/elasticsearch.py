"""Port 9200: health, and users with passwords, since security is on by default in version 8. Keeps no documents."""

import json
import os
from pathlib import Path

from standin.web import Answer, same, serve, setting

USERS = Path("/usr/share/elasticsearch/data/users.json")


def make_server():
    secured = os.environ.get("xpack.security.enabled", "true") != "false"
    users = json.loads(USERS.read_text()) if USERS.exists() else {}
    users["elastic"] = setting("ELASTIC_PASSWORD")
    if secured and not users["elastic"]:
        raise SystemExit("xpack.security is enabled: ELASTIC_PASSWORD or ELASTIC_PASSWORD_FILE is needed")

    def allowed(caller: tuple[str, str]) -> bool:
        return not secured or bool(users.get(caller[0])) and same(users[caller[0]], caller[1])

    def change_user(path: str, body: bytes) -> Answer:
        name = path.removeprefix("/_security/user/").removesuffix("/_password")
        users[name] = json.loads(body)["password"]
        USERS.write_text(json.dumps(users))
        return 200, {"created": True}

    def routes(method: str, path: str, caller: tuple[str, str], body: bytes) -> Answer:
        if not allowed(caller):
            return 401, {"error": {"type": "security_exception", "reason": "missing or wrong authentication"}, "status": 401}
        if path.startswith("/_security/") and (method not in ("POST", "PUT") or caller[0] != "elastic"):
            return 403, {"error": {"type": "security_exception", "reason": "only elastic changes users"}, "status": 403}
        if path.startswith("/_security/user/"):
            return change_user(path, body)
        if path.startswith("/_security/role/"):
            return 200, {"role": {"created": True}}
        if path == "/_cluster/health":
            return 200, {"cluster_name": "stand-in", "status": "green", "number_of_nodes": 1}
        if path == "/":
            return 200, {"name": "stand-in", "version": {"number": "8.11.0"}, "tagline": "You Know, for Search"}
        return 404, {"error": {"type": "not_found", "reason": path}, "status": 404}

    return serve(9200, routes)
