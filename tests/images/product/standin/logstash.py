"""Port 9600: health and how many events came in. UDP port 12201 takes GELF messages, and they are counted and let go."""

import socket
import threading
from pathlib import Path

from standin.web import Answer, serve

PIPELINES = Path("/usr/share/logstash/pipeline")


def make_server():
    if not list(PIPELINES.glob("*.conf")):
        raise SystemExit(f"No config files found in {PIPELINES}")
    events = {"in": 0}
    threading.Thread(target=count_datagrams, args=(events,), daemon=True).start()

    def routes(method: str, path: str, caller: tuple[str, str], body: bytes) -> Answer:
        if path == "/":
            return 200, {"version": "8.11.0", "status": "green", "name": "stand-in"}
        if path == "/_node/stats/events":
            return 200, {"events": events}
        return 404, {"path": path, "status": 404}

    return serve(9600, routes)


def count_datagrams(events: dict[str, int]) -> None:
    listener = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    listener.bind(("0.0.0.0", 12201))
    while True:
        listener.recv(65536)
        events["in"] += 1
