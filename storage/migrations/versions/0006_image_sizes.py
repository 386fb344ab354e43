"""Image sizes that are not square: text, `640` or `640x384`."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    for name in ("nas_latencies", "nas_calibrations"):
        with op.batch_alter_table(name) as table:
            table.alter_column(
                "imgsz",
                existing_type=sa.Integer(),
                existing_nullable=False,
                type_=sa.String(20),
                postgresql_using="imgsz::varchar",
            )
