"""The environment of every container is one that the code reads, and takes."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import SecretStr

from chart.generate import settings
from chart.rendering import CASES, Object, containers, plain, render, secret, workloads
from keshi.cli.serve import TokenSettings
from keshi.handlers import registry
from keshi.runtime.settings import (
    ApiClientSettings,
    KafkaSettings,
    KeySettings,
    OrchestratorSettings,
    ProcessSettings,
    WorkerSettings,
    load,
)

OWN_HANDLERS = ("KESHI_NEWSLETTER_",)
"""Of a handler that is somebody else's."""


def every_container() -> Iterator[tuple[str, str, Object]]:
    for case in CASES:
        for name, workload in workloads(render(case)).items():
            for container in containers(workload):
                yield case, name, container


def test_every_variable_is_a_setting() -> None:
    known = settings()
    for case, name, container in every_container():
        for variable in (*plain(container), *secret(container)):
            if variable.startswith("KESHI_") and not variable.startswith(OWN_HANDLERS):
                assert variable in known, f"{case}: {name}: {variable}"


def test_no_secret_stands_in_a_manifest() -> None:
    known = settings()
    for case, name, container in every_container():
        for variable in plain(container):
            _, annotation = known.get(variable, (None, None))
            if SecretStr.__name__ not in str(annotation):
                continue
            # On SQLite the URL of the ledger is a path.
            assert variable == "KESHI_LEDGER_URL", f"{case}: {name}: {variable}"
            assert plain(container)[variable].startswith("sqlite:////")


def test_the_code_takes_every_value(monkeypatch: pytest.MonkeyPatch) -> None:
    """What Helm wrote is read by the programs' own settings: types, limits and words."""
    given = {"KESHI_API_TOKENS": '{"billing": "token-1", "crm": "token-2"}'}
    for _, _, container in every_container():
        with monkeypatch.context() as patch:
            for variable in [v for v in os.environ if v.startswith("KESHI_")]:
                patch.delenv(variable)
            for variable, value in plain(container).items():
                patch.setenv(variable, value)
            for variable in secret(container):
                patch.setenv(variable, given.get(variable, "from-a-secret"))
            _check(container)


def _check(container: Object) -> None:
    env = plain(container)
    for kind in (ProcessSettings, KeySettings, TokenSettings):
        load(kind)
    core, kafka = load(OrchestratorSettings), load(KafkaSettings)
    assert kafka.bootstrap == env.get("KESHI_KAFKA_BOOTSTRAP", kafka.bootstrap)
    match container["name"]:
        case "orchestrator":
            assert core.orchestrator_health_port == container["ports"][0]["containerPort"]
            assert core.inventory == Path(env["KESHI_INVENTORY"])
            assert load(KeySettings).kek_file == Path(env["KESHI_KEK_FILE"])
            assert core.ledger_url.get_secret_value()
        case "api":
            assert core.api_port == container["ports"][0]["containerPort"]
            assert core.tokens_file == Path(env["KESHI_TOKENS_FILE"])
            assert core.ledger_url.get_secret_value()
        case "handler":
            worker = load(WorkerSettings)
            assert worker.health_port == container["ports"][0]["containerPort"]
            assert registry.allowed(container["args"][2:], worker.allowed_handlers) == tuple(container["args"][2:])
            assert load(ApiClientSettings).url == env["KESHI_API_URL"]
    if kafka.security_protocol.startswith("SASL"):
        assert kafka.sasl_username
        assert kafka.sasl_password


@pytest.mark.parametrize("system", sorted(registry.available()))
def test_the_secrets_of_built_in_handlers_are_asked_for(system: str) -> None:
    """Whatever secret a handler's settings have, its workload takes it from its Secret, as value or as file."""
    prefix = f"KESHI_{system.upper()}_"
    wanted = {v for v, (_, a) in settings().items() if v.startswith(prefix) and SecretStr.__name__ in str(a)}
    workload = workloads(render("default"))[f"keshi-handler-{system.replace('_', '-')}"]
    (container,) = containers(workload)
    given = {*secret(container), *(n.removesuffix("_FILE") for n in plain(container) if n.endswith("_FILE"))}
    assert wanted <= given
