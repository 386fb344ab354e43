"""Libraries of blocks, and designs that were put together from them."""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"


def upgrade() -> None:
    op.create_table(
        "nas_entries",
        sa.Column("search_id", sa.Integer(), nullable=False),
        sa.Column("place", sa.String(50), nullable=False),
        sa.Column("block", sa.String(100), nullable=False),
        sa.Column("widen", sa.Integer(), nullable=False),
        sa.Column("error", sa.Double(), nullable=True),
        sa.Column("seconds", sa.Double(), nullable=False),
        sa.Column("problem", sa.String(300), nullable=False),
        sa.ForeignKeyConstraint(["search_id"], ["nas_searches.id"], name="fk_nas_entries_search_id"),
        sa.PrimaryKeyConstraint("search_id", "place", "block", "widen", name="pk_nas_entries"),
    )
    op.create_table(
        "nas_assemblies",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("search_id", sa.Integer(), nullable=False),
        sa.Column("architecture_key", sa.String(16), nullable=False),
        sa.Column("map50_95", sa.Double(), nullable=True),
        sa.Column("seconds", sa.Double(), nullable=False),
        sa.Column("problem", sa.String(300), nullable=False),
        sa.ForeignKeyConstraint(["search_id"], ["nas_searches.id"], name="fk_nas_assemblies_search_id"),
        sa.ForeignKeyConstraint(
            ["architecture_key"], ["nas_architectures.key"], name="fk_nas_assemblies_architecture_key"
        ),
        sa.PrimaryKeyConstraint("id", name="pk_nas_assemblies"),
        sa.UniqueConstraint("search_id", "architecture_key", name="uq_nas_assemblies_search_id_architecture_key"),
    )
