"""Files of the users. A file is written beside its place, then moved there: a reader or a backup never sees half of one."""

import hashlib
import os
import re
import tempfile

from fastapi import APIRouter, HTTPException, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import FileResponse
from pydantic import BaseModel
from sqlalchemy import select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from app.core.database import Database
from app.core.settings import settings
from app.core.tokens import CurrentUser
from app.models import Upload

router = APIRouter(prefix="/api/v1/uploads")

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
# The same as nginx's client_max_body_size.
LARGEST_BYTES = 20 * 1024 * 1024


class KnownUpload(BaseModel, from_attributes=True):
    name: str
    size: int
    sha256: str


@router.get("")
def all_uploads(database: Database, user: CurrentUser) -> list[KnownUpload]:
    return [KnownUpload.model_validate(row) for row in database.scalars(select(Upload).order_by(Upload.name))]


@router.get("/{name}")
def download(name: str, database: Database, user: CurrentUser) -> FileResponse:
    if database.get(Upload, name) is None:
        raise HTTPException(404, f"there is no upload {name}")
    return FileResponse(settings().uploads / name)


@router.put("/{name}", status_code=201)
async def upload(name: str, request: Request, database: Database, user: CurrentUser) -> KnownUpload:
    if not NAME.fullmatch(name):
        raise HTTPException(422, "a name has letters, digits, '.', '_' and '-', and begins with a letter or digit")
    digest, size = hashlib.sha256(), 0
    with tempfile.NamedTemporaryFile(dir=settings().uploads, prefix=".incoming-", delete=False) as file:
        try:
            async for part in request.stream():
                size += len(part)
                if size > LARGEST_BYTES:
                    raise HTTPException(413, f"more than {LARGEST_BYTES} bytes")
                digest.update(part)
                file.write(part)
            file.flush()
            os.fsync(file.fileno())
            stored = KnownUpload(name=name, size=size, sha256=digest.hexdigest())
            await run_in_threadpool(record, database, stored, user.id)
            os.replace(file.name, settings().uploads / name)
        except BaseException:
            os.unlink(file.name)
            raise
    await run_in_threadpool(database.commit)
    return stored


def record(database: Session, stored: KnownUpload, user: int) -> None:
    row = {**stored.model_dump(), "user_id": user}
    change = {key: value for key, value in row.items() if key != "name"}
    database.execute(insert(Upload).values(row).on_conflict_do_update(index_elements=[Upload.name], set_=change))
