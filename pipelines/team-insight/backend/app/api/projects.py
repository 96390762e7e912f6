"""The projects that were taken over from Backlog, or made here."""

from fastapi import APIRouter, HTTPException
from pydantic import BaseModel, Field
from sqlalchemy import select
from sqlalchemy.exc import IntegrityError

from app.core.database import Database
from app.core.tokens import CurrentUser
from app.models import Membership, Project

router = APIRouter(prefix="/api/v1/projects")


class NewProject(BaseModel):
    key: str = Field(pattern=r"^[A-Z][A-Z0-9_]{1,24}$")
    name: str = Field(min_length=1, max_length=200)


class KnownProject(NewProject, from_attributes=True):
    id: int


@router.get("")
def all_projects(database: Database) -> list[KnownProject]:
    return [KnownProject.model_validate(row) for row in database.scalars(select(Project).order_by(Project.key))]


@router.post("", status_code=201)
def make(wanted: NewProject, database: Database, user: CurrentUser) -> KnownProject:
    project = Project(key=wanted.key, name=wanted.name)
    database.add(project)
    try:
        database.flush()
    except IntegrityError as error:
        raise HTTPException(409, f"there is a project {wanted.key} already") from error
    database.add(Membership(project_id=project.id, user_id=user.id))
    database.commit()
    return KnownProject.model_validate(project)
