"""What the scripts of orb-build jobs were made of: of builds of before it is not known."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"

COLUMNS = ("template", "opam_package")


def upgrade() -> None:
    for name in COLUMNS:
        op.add_column("build", sa.Column(name, sa.Text))


def downgrade() -> None:
    for name in COLUMNS:
        op.drop_column("build", name)
