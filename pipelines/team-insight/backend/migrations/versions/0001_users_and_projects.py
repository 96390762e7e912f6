"""Users and projects."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def created_at() -> sa.Column:
    return sa.Column("created_at", sa.DateTime, nullable=False, server_default=sa.func.now())


def upgrade() -> None:
    op.create_table(
        "users",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("backlog_id", sa.String, nullable=False, unique=True),
        sa.Column("name", sa.String, nullable=False),
        created_at(),
    )
    op.create_table(
        "projects",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("key", sa.String, nullable=False, unique=True),
        sa.Column("name", sa.String, nullable=False),
        created_at(),
    )


def downgrade() -> None:
    op.drop_table("projects")
    op.drop_table("users")
