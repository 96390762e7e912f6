"""Which version answers, in which colour."""

from fastapi import APIRouter

from app.core.settings import settings

router = APIRouter(prefix="/api/v1")


@router.get("/version")
async def version() -> dict[str, str]:
    return {"version": settings().version, "color": settings().color}
