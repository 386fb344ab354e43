"""Alembic's entry: run migrations on the connection that the repository hands over."""

from alembic import context

from storage.tables import Base

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Base.metadata,
    version_table="nas_yolo_version",  # Optuna keeps its own alembic_version in the same database
    render_as_batch=True,
)
with context.begin_transaction():
    context.run_migrations()
