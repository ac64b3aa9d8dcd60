"""The API as a process of its own, put together from parts as a composition root does."""

import os
import sys
from pathlib import Path

from keshi.orchestrator.api.app import create_app
from keshi.orchestrator.api.decisions import KafkaDecisions
from keshi.orchestrator.api.run import ServerOptions, run
from keshi.orchestrator.context import Policy
from keshi.orchestrator.ledger.postgres import PostgresLedger, connect
from keshi.orchestrator.tokens import load_tokens
from keshi.runtime import failpoints, logs
from keshi.runtime.settings import KafkaSettings, ProcessSettings, load
from kit.seeding import PARTITIONS, new_keys


def main() -> int:
    process = load(ProcessSettings)
    logs.configure(process)
    failpoints.configure(process)
    ledger = PostgresLedger(connect(os.environ["TEST_LEDGER"]))
    decisions = KafkaDecisions(load(KafkaSettings))
    app = create_app(
        ledger=ledger,
        keys=new_keys(ledger),
        policy=Policy(lease_seconds=30),
        tokens=load_tokens(Path(os.environ["TEST_TOKENS"])),
        decisions=decisions,
        partitions=PARTITIONS,
    )
    try:
        return run(app, ServerOptions(port=0), on_ready=_tell)
    finally:
        decisions.close()
        ledger.close()


def _tell(port: int) -> None:
    sys.stdout.write(f"{port}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
