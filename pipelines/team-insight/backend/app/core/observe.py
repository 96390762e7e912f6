"""Around every request: it is counted and timed, and its answer says which version and colour gave it."""

import time

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.core import metrics
from app.core.settings import Settings

# Paths that no route knows share one label: they come from outside and could be any number.
UNKNOWN = "(none)"


class Observe:
    def __init__(self, app: ASGIApp, settings: Settings):
        self.app = app
        self.headers = [
            (b"x-service-version", settings.version.encode()),
            (b"x-service-color", settings.color.encode()),
        ]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        status, started = 500, time.perf_counter()

        async def send_marked(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message.get("headers", []), *self.headers]
            await send(message)

        try:
            await self.app(scope, receive, send_marked)
        finally:
            route = scope.get("route")
            endpoint = getattr(route, "path", UNKNOWN)
            metrics.requests.labels(scope["method"], endpoint, str(status)).inc()
            metrics.duration.labels(scope["method"], endpoint).observe(time.perf_counter() - started)
