"""What is noted of requests for those who ask, and what was exported.

`cases`, `people` and `endings` are projections; each index answers one kind of question in the order of the answer.
`exports` is insert-only.
"""

import json
from collections.abc import Iterator
from typing import Any

from alembic import op
from sqlalchemy import bindparam, text

from keshi.orchestrator.events import Case
from keshi.orchestrator.ledger.migrations.dialect import guard, run
from keshi.orchestrator.ledger.sections import moment
from keshi.orchestrator.request import State

revision = "0003"
down_revision = "0002"

TABLES = (
    """CREATE TABLE cases (
        number bigint PRIMARY KEY, request_id text NOT NULL, action text NOT NULL, regime text NOT NULL,
        ground text NOT NULL, arrived timestamptz NOT NULL, due timestamptz NOT NULL, closed timestamptz)""",
    "CREATE INDEX cases_action ON cases (action, number)",
    "CREATE INDEX cases_regime ON cases (regime, number)",
    "CREATE INDEX cases_ground ON cases (ground, number)",
    "CREATE INDEX cases_arrived ON cases (arrived, number)",
    "CREATE INDEX cases_closed ON cases (closed, number) WHERE closed IS NOT NULL",
    "CREATE INDEX cases_late ON cases (number) WHERE closed > due",
    "CREATE INDEX cases_open ON cases (number) WHERE closed IS NULL",
    "CREATE INDEX cases_due ON cases (due, number) WHERE closed IS NULL",
    "CREATE TABLE people (holder text NOT NULL, number bigint NOT NULL, PRIMARY KEY (holder, number))",
    """CREATE TABLE endings (
        outcome text NOT NULL, number bigint NOT NULL, system text NOT NULL, ground text NOT NULL,
        PRIMARY KEY (outcome, number, system, ground))""",
    "CREATE INDEX endings_system ON endings (outcome, system, number)",
    "CREATE INDEX endings_ground ON endings (outcome, ground, number) WHERE ground <> ''",
    """CREATE TABLE exports (
        id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, at timestamptz NOT NULL, person text NOT NULL,
        purpose text NOT NULL, form text NOT NULL, filters text NOT NULL, requests bigint NOT NULL,
        lines bigint NOT NULL, sha256 text NOT NULL)""",
)


def upgrade() -> None:
    """Make the tables, and note what the ledger has."""
    run(*TABLES)
    guard(("exports",))
    bind = op.get_bind()
    at = {"arrived", "due", "closed"} if bind.dialect.name == "sqlite" else set()
    for page in _pages(bind):
        for table, found in page.items():
            if found:
                rows = [{k: moment(v) if k in at and v else v for k, v in row.items()} for row in found]
                names = ", ".join(rows[0])
                places = ", ".join(f":{n}" for n in rows[0])
                bind.execute(text(f"INSERT INTO {table} ({names}) VALUES ({places})"), rows)  # noqa: S608 - names of ours


def _pages(bind: Any) -> Iterator[dict[str, list[dict[str, Any]]]]:
    """What is to be noted, by table, a thousand requests at a time."""
    some = text("SELECT number, state, accepted FROM requests WHERE number > :after ORDER BY number LIMIT 1000")
    after = 0
    while requests := bind.execute(some, {"after": after}).all():
        after = requests[-1].number
        yield _noted(bind, [(r.number, State.model_validate_json(r.state), r.accepted) for r in requests])


def _noted(bind: Any, requests: list[tuple[int, State, str]]) -> dict[str, list[dict[str, Any]]]:
    found: dict[str, list[dict[str, Any]]] = {"cases": [], "people": [], "endings": []}
    known = [(n, s, Case.model_validate_json(c)) for n, s, c in requests if c]
    plans = _plans(bind, {case.plan_hash for _, _, case in known})
    for number, state, case in known:
        found["cases"].append(
            {
                "number": number,
                "request_id": state.request_id,
                "action": case.action.value,
                "regime": case.regime.value,
                "ground": case.ground,
                "arrived": case.arrival.at,
                "due": case.due,
                "closed": state.closed_at,
            }
        )
        found["people"] += [{"holder": h, "number": number} for h in sorted(set(case.subject))]
        ended = {
            *((o["outcome"], t["system"], o.get("ground") or "") for t in plans[case.plan_hash] for o in t["known"]),
            *((o.outcome.value, t.system, o.ground or "") for t in state.tasks.values() for o in t.outcomes),
        }
        found["endings"] += [{"outcome": o, "number": number, "system": s, "ground": g} for o, s, g in sorted(ended)]
    return found


def _plans(bind: Any, hashes: set[str]) -> dict[str, Any]:
    """The tasks of each plan."""
    if not hashes:
        return {}
    some = text("SELECT hash, body FROM plans WHERE hash IN :hashes")
    rows = bind.execute(some.bindparams(bindparam("hashes", expanding=True)), {"hashes": sorted(hashes)})
    return {
        r.hash: [{"system": t["system"], "known": t.get("known", ())} for t in json.loads(r.body)["tasks"]]
        for r in rows
    }
