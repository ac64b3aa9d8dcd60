"""Commands, inventories and people for tests. All of them obviously invented."""

import json
from datetime import UTC, datetime
from typing import Any

from ulid import ULID

from keshi.schemas.inventory import Inventory

ARRIVED = "2026-11-02T09:00:00Z"


def inventory(**systems: dict[str, Any]) -> Inventory:
    """An inventory of a shop (`orders` kept for years) and its mailing tool, with changes by system."""
    base: dict[str, dict[str, Any]] = {
        "shop": {
            "actions": ["erase", "suspend_use", "resume_use"],
            "identifiers": ["customer_id", "email"],
            "record_limit": 50,
            "categories": [
                {"name": "profile", "title": "Profiles"},
                {"name": "orders", "title": "Orders", "retention": [{"ground": "jp.tax-records", "years": 7}]},
            ],
        },
        "mail": {
            "actions": ["erase", "suspend_use", "resume_use"],
            "identifiers": ["email"],
            "categories": [{"name": "contacts", "title": "Contacts"}],
        },
    }
    for name, change in systems.items():
        base[name] = {**base.get(name, {}), **change}
    found = [
        {"name": n, "title": n.title(), "owner": "platform", "role": "own", "country": "JP", **s}
        for n, s in base.items()
        if s.get("actions") is not None
    ]
    return Inventory.model_validate({"version": 1, "company": "Example", "systems": found}, strict=False)


def new_id() -> str:
    return str(ULID())


def command(kind: str = "EraseSubject", **change: Any) -> dict[str, Any]:
    """The data of a command."""
    if kind == "WithdrawRequest":
        return {"request_id": change["request_id"]}
    n = change.pop("person", 7)
    return {
        "request_id": new_id(),
        "identifiers": [
            {"type": "email", "value": f"person{n}@sample.example"},
            {"type": "customer_id", "value": f"C-{n:06d}"},
        ],
        "regime": "appi",
        "ground": "appi.35-5",
        "requested_by": {"kind": "person", "identity_evidence": ["dsar:id-check-1"]},
        "assessed": {"by": "staff:aoi", "at": ARRIVED},
        "arrived": {"at": ARRIVED, "channel": "web:privacy-form"},
        "due": "2036-11-02T09:00:00Z",
        **change,
    }


def cloudevent(data: dict[str, Any], kind: str = "EraseSubject", **attributes: Any) -> bytes:
    """A whole message, as a DSAR system sends it."""
    body = {"specversion": "1.0", "id": new_id(), "source": "urn:example:dsar", "type": f"keshi.{kind}.v1"}
    return json.dumps({**body, **attributes, "data": data}).encode()


def now() -> datetime:
    return datetime.now(UTC)
