"""Events; and what else tells how a search stands: its progress, and the work that its ledger is open for."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    op.create_table(
        "nas_events",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("search_id", sa.Integer(), nullable=False),
        sa.Column("at_s", sa.Double(), nullable=False),
        sa.Column("kind", sa.String(30), nullable=False),
        sa.Column("document", sa.JSON(), nullable=False),
        sa.Column("recorded_at", sa.DateTime(), nullable=False),
        sa.ForeignKeyConstraint(["search_id"], ["nas_searches.id"], name="fk_nas_events_search_id_nas_searches"),
        sa.PrimaryKeyConstraint("id", name="pk_nas_events"),
    )
    op.create_index("ix_nas_events_search_id_id", "nas_events", ["search_id", "id"])
    op.add_column("nas_searches", sa.Column("progress", sa.JSON(), nullable=True))
    op.add_column("nas_ledger", sa.Column("job", sa.JSON(), nullable=True))
    op.add_column("nas_ledger", sa.Column("ended", sa.Boolean(), nullable=False, server_default=sa.true()))
