"""How long an epoch takes, predicted before one has ended."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    op.add_column("nas_trials", sa.Column("predicted_epoch_s", sa.Double(), nullable=True))
