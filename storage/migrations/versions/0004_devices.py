"""Conditions of a measurement; accuracy of what is deployed."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    op.add_column("nas_latencies", sa.Column("conditions", sa.JSON(), nullable=False, server_default="{}"))
    with op.batch_alter_table("nas_latencies") as table:
        table.alter_column("conditions", server_default=None)
    op.add_column("nas_failures", sa.Column("target", sa.String(100), nullable=False, server_default=""))
    with op.batch_alter_table("nas_failures") as table:
        table.alter_column("target", server_default=None)
    op.create_table(
        "nas_deployed",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("trial_id", sa.Integer(), nullable=False),
        sa.Column("target", sa.String(100), nullable=False),
        sa.Column("fingerprint", sa.String(16), nullable=False),
        sa.Column("precision", sa.String(20), nullable=False),
        sa.Column("epochs", sa.Integer(), nullable=False),
        sa.Column("images", sa.Integer(), nullable=False),
        sa.Column("map50_95", sa.Double(), nullable=False),
        sa.Column("map50", sa.Double(), nullable=False),
        sa.Column("torch_map50_95", sa.Double(), nullable=False),
        sa.Column("torch_map50", sa.Double(), nullable=False),
        sa.Column("validated_at", sa.DateTime(), nullable=False),
        sa.ForeignKeyConstraint(["trial_id"], ["nas_trials.id"], name="fk_nas_deployed_trial_id_nas_trials"),
        sa.PrimaryKeyConstraint("id", name="pk_nas_deployed"),
    )
    op.create_index("ix_nas_deployed_trial_id", "nas_deployed", ["trial_id"])
