"""Where first weights come from, other batch sizes, zero-cost scores; epochs that were not validated."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"

INDEX = "ix_nas_trials_search_id_architecture_key"
FIRST = sa.text("origin NOT LIKE 'repeat:%' AND origin NOT LIKE 'parent:%'")


def upgrade() -> None:
    op.add_column("nas_trials", sa.Column("parents", sa.JSON(), nullable=True))
    op.add_column("nas_trials", sa.Column("inherited_share", sa.Double(), nullable=True))
    op.add_column("nas_trials", sa.Column("batch", sa.Integer(), nullable=True))
    op.add_column("nas_trials", sa.Column("scores", sa.JSON(), nullable=True))
    op.drop_index(INDEX, "nas_trials")
    columns = ["search_id", "architecture_key"]
    op.create_index(INDEX, "nas_trials", columns, unique=True, sqlite_where=FIRST, postgresql_where=FIRST)
    with op.batch_alter_table("nas_epochs") as table:
        table.alter_column("map50_95", existing_type=sa.Double(), nullable=True)
        table.alter_column("map50", existing_type=sa.Double(), nullable=True)
