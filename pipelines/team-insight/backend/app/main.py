"""The application: routes, and what stands around all of them."""

from contextlib import asynccontextmanager

from fastapi import FastAPI
from starlette.middleware.cors import CORSMiddleware

from app.api import auth, health, metrics, projects, sync, uploads, users, version
from app.core import database, logs, store
from app.core.hosts import OwnHosts
from app.core.observe import Observe
from app.core.settings import settings


@asynccontextmanager
async def lifespan(application: FastAPI):
    """Runs in each worker; after `yield` the worker has answered its last request."""
    yield
    database.engine().dispose()
    database.engine_for_health().dispose()
    store.client().close()


def make() -> FastAPI:
    chosen = settings()
    logs.set_up(chosen)
    application = FastAPI(title="Team Insight", version=chosen.version, lifespan=lifespan, docs_url=None, redoc_url=None)
    for part in (health, metrics, version, auth, projects, users, sync, uploads):
        application.include_router(part.router)
    application.add_middleware(
        CORSMiddleware, allow_origins=list(chosen.cors_origins), allow_methods=["*"], allow_headers=["Authorization", "Content-Type"]
    )
    application.add_middleware(OwnHosts, allowed=chosen.allowed_hosts)
    # Added last, so it is outermost: refusals are counted too.
    application.add_middleware(Observe, settings=chosen)
    return application


app = make()
