"""The connection pool, and one session for each request."""

from collections.abc import Iterator
from functools import cache
from typing import Annotated

from fastapi import Depends
from sqlalchemy import Engine, create_engine
from sqlalchemy.orm import Session

from app.core.settings import settings


@cache
def engine() -> Engine:
    return connect(settings().pool_size, settings().max_overflow)


@cache
def engine_for_health() -> Engine:
    """One connection of its own: a worker whose pool is empty is busy, not ill."""
    return connect(1, 0)


def connect(pool_size: int, max_overflow: int) -> Engine:
    chosen = settings()
    return create_engine(
        chosen.database,
        pool_size=pool_size,
        max_overflow=max_overflow,
        pool_timeout=5,
        # A connection that died while it lay in the pool is replaced instead of failing a request.
        pool_pre_ping=True,
        connect_args={"connect_timeout": 5, "application_name": f"team-insight {chosen.version} {chosen.color}"},
    )


def session() -> Iterator[Session]:
    with Session(engine()) as opened:
        yield opened


Database = Annotated[Session, Depends(session)]
