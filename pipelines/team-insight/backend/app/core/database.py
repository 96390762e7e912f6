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
    chosen = settings()
    return create_engine(
        chosen.database,
        pool_size=chosen.pool_size,
        max_overflow=chosen.max_overflow,
        pool_timeout=5,
        # A connection that died while it lay in the pool is replaced instead of failing a request.
        pool_pre_ping=True,
        connect_args={"connect_timeout": 5, "application_name": f"team-insight {chosen.version} {chosen.color}"},
    )


def session() -> Iterator[Session]:
    with Session(engine()) as opened:
        yield opened


Database = Annotated[Session, Depends(session)]
