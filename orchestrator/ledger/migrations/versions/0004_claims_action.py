"""What an open request of a person asks for stands beside its claim: a later one may take its place (ADR 0021)."""

from keshi.orchestrator.ledger.migrations.dialect import run

revision = "0004"
down_revision = "0003"

FILL = "UPDATE claims SET action = c.action FROM cases c WHERE c.number = claims.number"


def upgrade() -> None:
    """Add the column and fill it."""
    run("ALTER TABLE claims ADD COLUMN action text NOT NULL DEFAULT ''", FILL)
