"""Logging in through Backlog, and out."""

import hmac
import secrets
import time

import httpx
from fastapi import APIRouter, HTTPException, Request
from fastapi.responses import JSONResponse, RedirectResponse, Response

from app import backlog, people
from app.core import store, tokens
from app.core.database import Database
from app.core.settings import Backlog, settings

router = APIRouter(prefix="/api/v1/auth")

# Ties the answer of Backlog to the browser that asked, so that nobody can be logged in as somebody else by a link.
STATE = "login-state"


def space() -> Backlog:
    configured = settings().backlog
    if configured is None:
        raise HTTPException(503, "no Backlog space is configured")
    return configured


@router.get("/login")
def log_in() -> Response:
    state = secrets.token_urlsafe(32)
    address = backlog.log_in_address(space(), state)
    store.remember_login(state)
    answer = RedirectResponse(address, 302)
    answer.set_cookie(STATE, state, max_age=store.LOGIN_SECONDS, secure=True, httponly=True, samesite="lax", path=router.prefix)
    return answer


@router.get("/callback")
def came_back(request: Request, code: str, state: str, database: Database) -> Response:
    ours = hmac.compare_digest(request.cookies.get(STATE, "").encode(), state.encode())
    if not ours or not store.take_login(state):
        raise HTTPException(400, "this log-in was not begun here, or too long ago")
    try:
        grant = backlog.exchange(space(), code)
        person = backlog.myself(space(), grant.access_token)
    except (httpx.HTTPError, KeyError, ValueError) as error:
        raise HTTPException(502, "Backlog did not confirm the log-in") from error
    user = people.known(database, str(person["id"]), person["name"])
    store.keep_backlog_token(user, grant.access_token, grant.expires_in)
    answer = JSONResponse({"access_token": tokens.issue(user), "token_type": "bearer", "expires_in": tokens.LIFETIME_SECONDS})
    answer.delete_cookie(STATE, path=router.prefix)
    return answer


@router.post("/logout", status_code=204)
def log_out(token: tokens.CurrentToken) -> None:
    store.revoke(token.id, token.expires - int(time.time()))
