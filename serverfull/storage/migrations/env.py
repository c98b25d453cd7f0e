"""What alembic runs, on the connection and in the transaction of who calls it (`serverfull.storage.migrating`)."""

from __future__ import annotations

from alembic import context

from serverfull.storage.tables import metadata_of

# SQLite takes changes of tables back like any other; alembic believes otherwise.
context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata_of(),
    render_as_batch=True,
    transactional_ddl=True,
)
with context.begin_transaction():
    context.run_migrations()
