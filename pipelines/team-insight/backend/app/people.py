"""The users, one for each account of Backlog."""

from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from app.models import User


def known(database: Session, backlog_id: str, name: str) -> int:
    """The user of that account, made if need be, under the name it has now."""
    wanted = insert(User).values(backlog_id=backlog_id, name=name)
    stored = wanted.on_conflict_do_update(index_elements=[User.backlog_id], set_={"name": name}).returning(User.id)
    user = database.scalar(stored)
    database.commit()
    return user
