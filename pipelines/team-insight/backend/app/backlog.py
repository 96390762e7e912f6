"""Backlog's OAuth and the two questions asked of its API."""

from dataclasses import dataclass
from urllib.parse import urlencode

import httpx

from app.core.settings import Backlog

# Backlog is outside; nginx gives up on us after 30 seconds.
TIMEOUT_SECONDS = 10.0


@dataclass(frozen=True)
class Grant:
    access_token: str
    expires_in: int


def log_in_address(space: Backlog, state: str) -> str:
    question = {"response_type": "code", "client_id": space.client_id, "redirect_uri": space.redirect_uri, "state": state}
    return f"{space.address}/OAuth2AccessRequest.action?{urlencode(question)}"


def exchange(space: Backlog, code: str) -> Grant:
    answer = httpx.post(
        f"{space.address}/api/v2/oauth2/token",
        data={
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": space.redirect_uri,
            "client_id": space.client_id,
            "client_secret": space.client_secret,
        },
        timeout=TIMEOUT_SECONDS,
    )
    answer.raise_for_status()
    body = answer.json()
    return Grant(body["access_token"], int(body["expires_in"]))


def myself(space: Backlog, access_token: str) -> dict:
    return ask(space, access_token, "/api/v2/users/myself")


def projects(space: Backlog, access_token: str) -> list[dict]:
    return ask(space, access_token, "/api/v2/projects")


def ask(space: Backlog, access_token: str, path: str):
    answer = httpx.get(f"{space.address}{path}", headers={"Authorization": f"Bearer {access_token}"}, timeout=TIMEOUT_SECONDS)
    answer.raise_for_status()
    return answer.json()
