"""Runs migrations one at a time: two that start at once would both find the same work to do."""

import os
from logging.config import fileConfig

from alembic import context
from sqlalchemy import create_engine, text

from app.core.settings import Environment, database_url
from app.models import Base

# Any number nobody else uses in this database.
ADVISORY_LOCK = 7_312_001
# A migration that waits behind a long query makes everybody queue behind it: better to fail and try again.
LOCK_TIMEOUT = "5s"

fileConfig(context.config.config_file_name, disable_existing_loggers=False)


def run() -> None:
    engine = create_engine(database_url(Environment(os.environ)), connect_args={"connect_timeout": 10})
    with engine.begin() as connection:
        if not connection.scalar(text("SELECT pg_try_advisory_xact_lock(:lock)"), {"lock": ADVISORY_LOCK}):
            raise SystemExit("another migration of this database is running; wait for it, then try again")
        connection.execute(text(f"SET LOCAL lock_timeout = '{LOCK_TIMEOUT}'"))
        context.configure(connection=connection, target_metadata=Base.metadata)
        with context.begin_transaction():
            context.run_migrations()


if context.is_offline_mode():
    context.configure(dialect_name="postgresql", target_metadata=Base.metadata, literal_binds=True)
    with context.begin_transaction():
        context.run_migrations()
else:
    run()
