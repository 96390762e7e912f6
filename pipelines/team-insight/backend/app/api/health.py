"""Whether this container can do its work: it answers, and so do its database and its Redis."""

import asyncio
import time

from fastapi import APIRouter
from fastapi.responses import JSONResponse
from sqlalchemy import text

from app.core import store
from app.core.database import engine_for_health
from app.core.settings import settings

router = APIRouter()

# Docker, the router and load balancers all ask; the database is asked once a second at most, by each worker.
GOOD_FOR_SECONDS = 1.0


class Health:
    def __init__(self) -> None:
        self.checks: dict[str, str] = {}
        self.until = 0.0
        self.asking = asyncio.Lock()

    async def current(self) -> dict[str, str]:
        async with self.asking:
            if time.monotonic() >= self.until:
                # Not in the threads that serve requests: those may all be busy.
                self.checks = await asyncio.to_thread(look)
                self.until = time.monotonic() + GOOD_FOR_SECONDS
            return self.checks


def look() -> dict[str, str]:
    return {"database": outcome(ask_database), "redis": outcome(store.client().ping)}


def ask_database() -> None:
    with engine_for_health().connect() as connection:
        connection.execute(text("SELECT 1"))


def outcome(question) -> str:
    try:
        question()
        return "ok"
    except Exception as error:  # whatever it is, the answer is "not healthy, because"
        return type(error).__name__


health = Health()


@router.get("/health")
async def answer() -> JSONResponse:
    checks = await health.current()
    healthy = all(found == "ok" for found in checks.values())
    body = {
        "status": "healthy" if healthy else "unhealthy",
        "version": settings().version,
        "color": settings().color,
        "checks": checks,
    }
    return JSONResponse(body, 200 if healthy else 503)
