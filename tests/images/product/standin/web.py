"""An HTTP server that answers JSON from functions, and who the caller is by basic authentication."""

import base64
import hmac
import json
import os
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

Answer = tuple[int, object]


def setting(name: str, default: str = "", file_suffix: str = "_FILE") -> str:
    """A setting from the environment, or from the file that its `_FILE` twin names."""
    file = os.environ.get(name + file_suffix)
    return Path(file).read_text().strip() if file else os.environ.get(name, default)


def serve(port: int, routes) -> ThreadingHTTPServer:
    """A server that gives every request to `routes(method, path, credentials, body) -> (status, JSON)`."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            status, document = routes(self.command, self.path.split("?")[0], credentials(self.headers), body)
            content = json.dumps(document).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            if status == 401:
                self.send_header("WWW-Authenticate", "Basic")
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(content)

        do_GET = do_HEAD = do_POST = do_PUT = answer

        def log_message(self, format, *arguments) -> None:
            pass

    return ThreadingHTTPServer(("0.0.0.0", port), Handler)


def credentials(headers) -> tuple[str, str]:
    """User and password, empty where the request has none."""
    scheme, _, encoded = headers.get("Authorization", "").partition(" ")
    if scheme.lower() != "basic":
        return "", ""
    try:
        user, _, password = base64.b64decode(encoded).decode().partition(":")
    except ValueError:
        return "", ""
    return user, password


def same(left: str, right: str) -> bool:
    return hmac.compare_digest(left.encode(), right.encode())
