"""First tables."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = None


def upgrade() -> None:
    op.create_table(
        "nas_searches",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("name", sa.String(200), nullable=False),
        sa.Column("created_at", sa.DateTime(), nullable=False),
        sa.Column("state", sa.String(20), nullable=False),
        sa.Column("config", sa.JSON(), nullable=False),
        sa.Column("owner", sa.String(200)),
        sa.Column("heartbeat_at", sa.DateTime()),
        sa.PrimaryKeyConstraint("id", name="pk_nas_searches"),
        sa.UniqueConstraint("name", name="uq_nas_searches_name"),
    )
    op.create_table(
        "nas_architectures",
        sa.Column("key", sa.String(16), nullable=False),
        sa.Column("family", sa.String(50), nullable=False),
        sa.Column("document", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("key", name="pk_nas_architectures"),
    )
    op.create_table(
        "nas_calibrations",
        sa.Column("fingerprint", sa.String(16), nullable=False),
        sa.Column("imgsz", sa.Integer(), nullable=False),
        sa.Column("reference_ms", sa.Double(), nullable=False),
        sa.Column("spread", sa.Double(), nullable=False),
        sa.Column("measured_at", sa.DateTime(), nullable=False),
        sa.PrimaryKeyConstraint("fingerprint", "imgsz", name="pk_nas_calibrations"),
    )
    op.create_table(
        "nas_trials",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("search_id", sa.Integer(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("architecture_key", sa.String(16), nullable=False),
        sa.Column("origin", sa.String(100), nullable=False),
        sa.Column("state", sa.String(20), nullable=False),
        sa.Column("reason", sa.String(500), nullable=False),
        sa.Column("params", sa.Integer()),
        sa.Column("gflops", sa.Double()),
        sa.Column("params_fused", sa.Integer()),
        sa.Column("gflops_fused", sa.Double()),
        sa.Column("layers", sa.Integer()),
        sa.Column("created_at", sa.DateTime(), nullable=False),
        sa.Column("updated_at", sa.DateTime(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_nas_trials"),
        sa.UniqueConstraint("search_id", "number", name="uq_nas_trials_search_id_number"),
        sa.UniqueConstraint("search_id", "architecture_key", name="uq_nas_trials_search_id_architecture_key"),
        sa.ForeignKeyConstraint(["search_id"], ["nas_searches.id"], name="fk_nas_trials_search_id"),
        sa.ForeignKeyConstraint(["architecture_key"], ["nas_architectures.key"], name="fk_nas_trials_architecture_key"),
    )
    op.create_table(
        "nas_latencies",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("architecture_key", sa.String(16), nullable=False),
        sa.Column("classes", sa.Integer(), nullable=False),
        sa.Column("imgsz", sa.Integer(), nullable=False),
        sa.Column("fingerprint", sa.String(16), nullable=False),
        sa.Column("target", sa.String(100), nullable=False),
        sa.Column("latency_ms", sa.Double(), nullable=False),
        sa.Column("ci_low_ms", sa.Double(), nullable=False),
        sa.Column("ci_high_ms", sa.Double(), nullable=False),
        sa.Column("ratio", sa.Double(), nullable=False),
        sa.Column("reference_ms", sa.Double(), nullable=False),
        sa.Column("median_ms", sa.Double(), nullable=False),
        sa.Column("p90_ms", sa.Double()),
        sa.Column("samples", sa.Integer(), nullable=False),
        sa.Column("drift", sa.Double(), nullable=False),
        sa.Column("load", sa.Double()),
        sa.Column("quality", sa.String(20), nullable=False),
        sa.Column("flags", sa.JSON(), nullable=False),
        sa.Column("measured_at", sa.DateTime(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_nas_latencies"),
        sa.ForeignKeyConstraint(
            ["architecture_key"], ["nas_architectures.key"], name="fk_nas_latencies_architecture_key"
        ),
    )
    op.create_index(
        "ix_nas_latencies_architecture_key_classes_imgsz_fingerprint",
        "nas_latencies",
        ["architecture_key", "classes", "imgsz", "fingerprint"],
    )
    op.create_table(
        "nas_epochs",
        sa.Column("trial_id", sa.Integer(), nullable=False),
        sa.Column("epoch", sa.Integer(), nullable=False),
        sa.Column("map50_95", sa.Double(), nullable=False),
        sa.Column("map50", sa.Double(), nullable=False),
        sa.Column("loss", sa.Double(), nullable=False),
        sa.Column("seconds", sa.Double(), nullable=False),
        sa.Column("recorded_at", sa.DateTime(), nullable=False),
        sa.PrimaryKeyConstraint("trial_id", "epoch", name="pk_nas_epochs"),
        sa.ForeignKeyConstraint(["trial_id"], ["nas_trials.id"], name="fk_nas_epochs_trial_id"),
    )
    op.create_table(
        "nas_failures",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("trial_id", sa.Integer(), nullable=False),
        sa.Column("cause", sa.String(20), nullable=False),
        sa.Column("message", sa.String(500), nullable=False),
        sa.Column("detail", sa.String(), nullable=False),
        sa.Column("failed_at", sa.DateTime(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_nas_failures"),
        sa.ForeignKeyConstraint(["trial_id"], ["nas_trials.id"], name="fk_nas_failures_trial_id"),
    )
    op.create_index("ix_nas_failures_trial_id", "nas_failures", ["trial_id"])
    op.create_table(
        "nas_ledger",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("search_id", sa.Integer(), nullable=False),
        sa.Column("trial_id", sa.Integer()),
        sa.Column("kind", sa.String(20), nullable=False),
        sa.Column("gpus", sa.Double(), nullable=False),
        sa.Column("cpus", sa.Double(), nullable=False),
        sa.Column("seconds", sa.Double(), nullable=False),
        sa.Column("started_at", sa.DateTime(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_nas_ledger"),
        sa.ForeignKeyConstraint(["search_id"], ["nas_searches.id"], name="fk_nas_ledger_search_id"),
        sa.ForeignKeyConstraint(["trial_id"], ["nas_trials.id"], name="fk_nas_ledger_trial_id"),
    )
    op.create_index("ix_nas_ledger_search_id", "nas_ledger", ["search_id"])
