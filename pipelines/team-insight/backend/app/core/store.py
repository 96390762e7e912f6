"""Redis: what may be forgotten (log-in states, revoked tokens, who was active, tokens of Backlog)."""

import time
from functools import cache

import redis

from app.core.settings import settings

ACTIVE = "active-users"
# A user counts as active for this long after a request.
ACTIVE_SECONDS = 300
LOGIN_SECONDS = 600


@cache
def client() -> redis.Redis:
    chosen = settings()
    return redis.Redis.from_url(
        chosen.redis,
        max_connections=chosen.redis_max_connections,
        socket_connect_timeout=2,
        socket_timeout=2,
        decode_responses=True,
    )


def saw(user: int) -> None:
    now = time.time()
    with client().pipeline() as pipeline:
        pipeline.zadd(ACTIVE, {str(user): now})
        pipeline.zremrangebyscore(ACTIVE, 0, now - ACTIVE_SECONDS)
        pipeline.execute()


def active_users() -> int:
    return client().zcount(ACTIVE, time.time() - ACTIVE_SECONDS, "+inf")


def remember_login(state: str) -> None:
    client().set(f"login:{state}", "1", ex=LOGIN_SECONDS)


def take_login(state: str) -> bool:
    """True once for each state that was remembered."""
    return client().delete(f"login:{state}") == 1


def revoke(token_id: str, seconds: int) -> None:
    client().set(f"revoked:{token_id}", "1", ex=max(seconds, 1))


def is_revoked(token_id: str) -> bool:
    return bool(client().exists(f"revoked:{token_id}"))


def keep_backlog_token(user: int, token: str, seconds: int) -> None:
    client().set(f"backlog-token:{user}", token, ex=max(seconds, 1))


def backlog_token(user: int) -> str | None:
    return client().get(f"backlog-token:{user}")
