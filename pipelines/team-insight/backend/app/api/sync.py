"""Taking projects over from Backlog, with the access the user gave at log-in."""

import logging

import httpx
from fastapi import APIRouter, HTTPException
from sqlalchemy.dialects.postgresql import insert

from app import backlog
from app.core import metrics, store
from app.core.database import Database
from app.core.settings import settings
from app.core.tokens import CurrentUser
from app.models import Membership, Project

log = logging.getLogger(__name__)
router = APIRouter(prefix="/api/v1/sync")


@router.get("/connection/status")
def status(user: CurrentUser) -> dict[str, bool]:
    return {"configured": settings().backlog is not None, "connected": store.backlog_token(user.id) is not None}


@router.post("/projects")
def projects(user: CurrentUser, database: Database) -> dict[str, int]:
    space, token = settings().backlog, store.backlog_token(user.id)
    if space is None or token is None:
        raise HTTPException(409, "there is no connection to Backlog: log in again")
    try:
        found = backlog.projects(space, token)
    except httpx.HTTPError as error:
        metrics.sync_operations.labels("projects", "failed").inc()
        log.warning("taking projects over from Backlog failed: %s", type(error).__name__)
        raise HTTPException(502, "Backlog did not answer as it should") from error
    for project in found:
        take_over(database, user.id, project["projectKey"], project["name"])
    database.commit()
    metrics.sync_operations.labels("projects", "succeeded").inc()
    return {"projects": len(found)}


def take_over(database: Database, user: int, key: str, name: str) -> None:
    wanted = insert(Project).values(key=key, name=name)
    stored = wanted.on_conflict_do_update(index_elements=[Project.key], set_={"name": name}).returning(Project.id)
    member = insert(Membership).values(project_id=database.scalar(stored), user_id=user)
    database.execute(member.on_conflict_do_nothing())
