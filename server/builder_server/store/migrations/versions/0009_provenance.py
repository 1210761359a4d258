"""What workers say of the builds that they run, and which builds are still to be signed.

Builds of before are not signed: nobody has looked at what they were.
"""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"


def upgrade() -> None:
    op.add_column("build", sa.Column("facts", sa.Text))
    op.add_column("build", sa.Column("provenance", sa.Text))
    op.create_index("build_provenance", "build", ["provenance", "finished"])


def downgrade() -> None:
    """An earlier release signs nothing; the envelopes stay where they are."""
    op.drop_index("build_provenance", "build")
    op.drop_column("build", "provenance")
    op.drop_column("build", "facts")
