"""The case beside the state, and the door of each request: what hardly changes is no longer written and read each time.

Both are projections: they are worked out anew here from what stands in `requests`.
"""

import json

from alembic import op
from sqlalchemy import text

from keshi.orchestrator.door import write_door
from keshi.orchestrator.ledger.migrations.dialect import run
from keshi.orchestrator.request import State

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Add both columns and fill them."""
    run("ALTER TABLE requests ADD COLUMN accepted json", "ALTER TABLE requests ADD COLUMN door json")
    bind = op.get_bind()
    kind = "text" if bind.dialect.name == "sqlite" else "json"
    put = text(
        f"UPDATE requests SET state = CAST(:state AS {kind}), accepted = CAST(:accepted AS {kind}), "  # noqa: S608
        f"door = CAST(:door AS {kind}) WHERE request_id = :id"
    )
    for request_id, state in bind.execute(text("SELECT request_id, CAST(state AS text) FROM requests")).all():
        known = State.model_validate_json(state)
        case = json.loads(state).get("case")
        bind.execute(
            put,
            {
                "id": request_id,
                "state": known.model_dump_json(exclude={"case"}),
                "accepted": None if case is None else json.dumps(case),
                "door": write_door(known),
            },
        )
