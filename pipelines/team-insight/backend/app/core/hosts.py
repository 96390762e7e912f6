"""Refuses requests for hosts that are not ours, except the two paths that machines ask for by address."""

from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.types import ASGIApp, Receive, Scope, Send

# Docker, the router and Prometheus ask a container by its own address or name.
FOR_MACHINES = ("/health", "/metrics")


class OwnHosts:
    def __init__(self, app: ASGIApp, allowed: tuple[str, ...]):
        self.app = app
        self.guarded = TrustedHostMiddleware(app, allowed_hosts=list(allowed) or ["*"], www_redirect=False)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        open_to_machines = scope["type"] == "http" and scope["path"] in FOR_MACHINES
        await (self.app if open_to_machines else self.guarded)(scope, receive, send)
