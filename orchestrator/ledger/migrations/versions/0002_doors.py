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
    run("ALTER TABLE requests ADD COLUMN accepted text", "ALTER TABLE requests ADD COLUMN door text")
    bind = op.get_bind()
    put = text("UPDATE requests SET state = :state, accepted = :accepted, door = :door WHERE request_id = :id")
    for request_id, state in bind.execute(text("SELECT request_id, state FROM requests")).all():
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
