"""Who is asking."""

from fastapi import APIRouter

from app.core.tokens import CurrentUser

router = APIRouter(prefix="/api/v1/users")


@router.get("/me")
def me(user: CurrentUser) -> dict[str, int | str]:
    return {"id": user.id, "backlog_id": user.backlog_id, "name": user.name}
