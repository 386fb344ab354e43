"""An architecture may be trained again with another seed: unique among trials that are no repeats."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    with op.batch_alter_table("nas_trials") as table:
        table.drop_constraint("uq_nas_trials_search_id_architecture_key", type_="unique")
    first = sa.text("origin NOT LIKE 'repeat:%'")
    op.create_index(
        "ix_nas_trials_search_id_architecture_key",
        "nas_trials",
        ["search_id", "architecture_key"],
        unique=True,
        sqlite_where=first,
        postgresql_where=first,
    )
