"""Access tokens: made at log-in, checked at each request, revoked at log-out."""

import secrets
import time
from dataclasses import dataclass
from typing import Annotated

import jwt
from fastapi import Depends, HTTPException
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from app.core import store
from app.core.database import Database
from app.core.settings import settings
from app.models import User

ALGORITHM = "HS256"
LIFETIME_SECONDS = 8 * 3600

bearer = HTTPBearer(auto_error=False)


@dataclass(frozen=True)
class Token:
    id: str
    user: int
    expires: int


def issue(user: int) -> str:
    now = int(time.time())
    claims = {"sub": str(user), "jti": secrets.token_hex(16), "iat": now, "exp": now + LIFETIME_SECONDS}
    return jwt.encode(claims, settings().secret_key, ALGORITHM)


def refused() -> HTTPException:
    return HTTPException(401, "a valid access token is needed", {"WWW-Authenticate": "Bearer"})


def token(given: Annotated[HTTPAuthorizationCredentials | None, Depends(bearer)]) -> Token:
    if given is None:
        raise refused()
    try:
        claims = jwt.decode(given.credentials, settings().secret_key, [ALGORITHM], options={"require": ["sub", "jti", "exp"]})
        read = Token(claims["jti"], int(claims["sub"]), claims["exp"])
    except (jwt.InvalidTokenError, ValueError) as error:
        raise refused() from error
    if store.is_revoked(read.id):
        raise refused()
    return read


CurrentToken = Annotated[Token, Depends(token)]


def user(current: CurrentToken, database: Database) -> User:
    found = database.get(User, current.user)
    if found is None:
        raise refused()
    store.saw(found.id)
    return found


CurrentUser = Annotated[User, Depends(user)]
