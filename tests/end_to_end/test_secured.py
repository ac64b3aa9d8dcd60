"""Everything by TLS, and by SASL with as few rights as the documents name: a broker, a database, an API behind TLS."""

import asyncio
import os
import re
import secrets
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any
from uuid import uuid4

import psycopg
import pytest
import yaml
from aiokafka import AIOKafkaConsumer
from faust.transport.drivers.aiokafka import credentials_to_aiokafka_auth
from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, TopicPartition
from kafka.admin import (
    ACL,
    ACLOperation,
    ACLPermissionType,
    ACLResourcePatternType,
    ResourcePattern,
    ResourceType,
    ScramMechanism,
    UserScramCredentialUpsertion,
)
from kafka.errors import AuthorizationError

from keshi.cli import run
from keshi.dev import places
from keshi.dev.broker import Broker, BrokerOptions
from keshi.dev.credentials import Credentials, prepare
from keshi.dev.postgres import PostgresOptions, PostgresServer
from keshi.dev.processes import Part, PartSpec, answers
from keshi.dev.systems import billing
from keshi.dev.systems.people import KNOWN_CUSTOMER_ID, people
from keshi.handlers.connectors.sql import Database
from keshi.orchestrator.bootstrap import open_ledger
from keshi.orchestrator.silence import Silence
from keshi.orchestrator.stream.app import kafka_credentials
from keshi.runtime.kafka import (
    Outgoing,
    client_config,
    close_producer,
    new_admin,
    new_consumer,
    new_producer,
    send_all,
    unreachable,
)
from keshi.runtime.kafka_security import NotLetInError
from keshi.runtime.settings import ConfigurationError, KafkaSettings, OrchestratorSettings
from keshi.runtime.topics import identity
from kit.authority import Authority
from kit.tls_front import tls_front

SECONDS = 60.0
PREFIX = "keshi."
TOPIC, GROUP = ResourceType.TOPIC, ResourceType.GROUP
RIGHTS: Mapping[str, tuple[tuple[ResourceType, str, ACLOperation], ...]] = {
    # What docs/operations.md lists. A `*` at the end: all that begin so.
    "topics": tuple(
        (TOPIC, "*", right)
        for right in (
            ACLOperation.CREATE,
            ACLOperation.DESCRIBE,
            ACLOperation.DESCRIBE_CONFIGS,
            ACLOperation.ALTER_CONFIGS,
        )
    ),
    "orchestrator": (
        (TOPIC, "commands", ACLOperation.READ),
        (TOPIC, "reports", ACLOperation.READ),
        (TOPIC, "tasks.*", ACLOperation.WRITE),
        (TOPIC, "requests", ACLOperation.WRITE),
        (TOPIC, "quarantine", ACLOperation.WRITE),
        (GROUP, "orchestrator", ACLOperation.READ),
        (GROUP, "handlers.*", ACLOperation.DESCRIBE),
    ),
    "api": ((TOPIC, "commands", ACLOperation.WRITE), (TOPIC, "reports", ACLOperation.DESCRIBE)),
    "billing": (
        (TOPIC, "tasks.billing", ACLOperation.READ),
        (TOPIC, "reports", ACLOperation.WRITE),
        (GROUP, "handlers.billing", ACLOperation.READ),
    ),
    "dsar": ((TOPIC, "commands", ACLOperation.WRITE), (TOPIC, "requests", ACLOperation.READ)),
}
PROGRAMS: Mapping[str, tuple[str, ...]] = {
    "topics": ("topics", "apply"),
    "orchestrator": ("orchestrator", "run"),
    "api": ("api", "run"),
    "billing": ("handler", "run", "billing"),
    "dsar": ("submit", "erase", "--customer-id", KNOWN_CUSTOMER_ID, "--assessed-by", "staff:kato", "--wait"),
}
_LOGIN = "org.apache.kafka.common.security"


@dataclass
class Secured:
    """What runs, and all that may not be shown."""

    directory: Path
    broker: Broker
    authority: Authority
    stranger: Authority
    postgres: PostgresServer
    credentials: Credentials
    inventory: Path
    passwords: Mapping[str, str] = field(repr=False)
    ledger: str = field(repr=False)
    billing: str = field(repr=False)

    def kafka(self, user: str, listener: str = "SECURED", **change: Any) -> KafkaSettings:
        given = {
            "bootstrap": self.broker.address(listener),
            "prefix": PREFIX,
            "security_protocol": "SASL_SSL",
            "sasl_username": user,
            "sasl_password": self.passwords[user],
            "ssl_cafile": self.authority.file,
        }
        return KafkaSettings(**{**given, **change})

    def env(self, user: str, **more: str) -> dict[str, str]:
        """Of the process that is this user of Kafka."""
        own = {
            "KESHI_KAFKA_BOOTSTRAP": self.broker.address("SECURED"),
            "KESHI_KAFKA_SECURITY_PROTOCOL": "SASL_SSL",
            "KESHI_KAFKA_SASL_USERNAME": user,
            "KESHI_KAFKA_SASL_PASSWORD": self.passwords[user],
            "KESHI_KAFKA_SSL_CAFILE": str(self.authority.file),
            "KESHI_INVENTORY": str(self.inventory),
        }
        if user in {"orchestrator", "api"}:
            own["KESHI_LEDGER_URL"] = self.tls(self.ledger)
            own["KESHI_KEK_FILE"] = str(self.credentials.kek_file)
            own["KESHI_TOKENS_FILE"] = str(self.credentials.tokens_file)
        if user == "billing":
            own["KESHI_BILLING_DSN"] = self.tls(self.billing)
            own["KESHI_API_TOKEN"] = self.credentials.workers["billing"]
            own["KESHI_API_CAFILE"] = str(self.authority.file)
        others = {name: value for name, value in os.environ.items() if not name.startswith("KESHI_")}
        return {**others, **own, **more}

    def tls(self, url: str, authority: Authority | None = None) -> str:
        return f"{url}?sslmode=verify-full&sslrootcert={(authority or self.authority).file}"

    @property
    def secrets(self) -> list[str]:
        tokens = [*self.credentials.workers.values(), self.credentials.decider]
        word = re.search(r":([^:@]+)@", self.ledger)
        assert word
        kek = self.credentials.kek_file.read_text(encoding="utf-8").split()[1]
        return [*self.passwords.values(), *tokens, word[1], self.passwords["role"], kek]


@pytest.fixture(scope="module")
def secured() -> Iterator[Secured]:
    with ExitStack() as ending:
        directory = places.run_directory("keshi-secured-")
        ending.callback(shutil.rmtree, directory, ignore_errors=True)
        authority, stranger = Authority(directory), Authority(directory, "stranger")
        certificate = authority.issue("server", "127.0.0.1", "localhost")
        passwords = {name: secrets.token_urlsafe(18) for name in (*RIGHTS, "plain", "role")}
        options = BrokerOptions(
            directory / "kafka",
            listeners={"SECURED": "SASL_SSL", "OPEN": "SASL_PLAINTEXT", "MUTUAL": "SSL"},
            properties=_properties(certificate, authority, passwords),
        )
        broker = Broker(options)
        broker.start()
        ending.callback(broker.stop)
        _let_in(broker, passwords)
        postgres = _postgres(directory, authority)
        postgres.start()
        ending.callback(postgres.stop)
        whole = yaml.safe_load((Path(__file__).parents[1] / "two_systems.yaml").read_text(encoding="utf-8"))
        inventory = directory / "inventory.yaml"
        systems = [s for s in whole["systems"] if s["name"] == "billing"]
        inventory.write_text(yaml.safe_dump({**whole, "systems": systems}), encoding="utf-8")
        billing_dsn = postgres.create_database("billing")
        role = billing.create(billing_dsn, password=passwords["role"])
        billing.seed(billing_dsn, people(5, today=datetime.now(UTC).date()))
        yield Secured(
            directory=directory,
            broker=broker,
            authority=authority,
            stranger=stranger,
            postgres=postgres,
            credentials=prepare(directory / "keys", ["billing"]),
            inventory=inventory,
            passwords=passwords,
            ledger=postgres.create_database("ledger"),
            billing=role,
        )


def _properties(certificate: Path, authority: Authority, passwords: Mapping[str, str]) -> dict[str, str]:
    found = {
        "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
        # The broker to itself, and who makes users and rights here, by a listener that nobody else is told of.
        "super.users": "User:ANONYMOUS",
        "ssl.keystore.type": "PEM",
        "ssl.keystore.location": str(certificate),
        "ssl.truststore.type": "PEM",
        "ssl.truststore.location": str(authority.file),
        "listener.name.mutual.ssl.client.auth": "required",
    }
    for listener in ("secured", "open"):
        found[f"listener.name.{listener}.sasl.enabled.mechanisms"] = "SCRAM-SHA-512,SCRAM-SHA-256,PLAIN"
        for scram in ("scram-sha-512", "scram-sha-256"):
            login = f"{_LOGIN}.scram.ScramLoginModule required;"
            found[f"listener.name.{listener}.{scram}.sasl.jaas.config"] = login
        login = f'{_LOGIN}.plain.PlainLoginModule required user_plain="{passwords["plain"]}";'
        found[f"listener.name.{listener}.plain.sasl.jaas.config"] = login
    return found


def _let_in(broker: Broker, passwords: Mapping[str, str]) -> None:
    """Users, and what each may do."""
    admin = KafkaAdminClient(bootstrap_servers=broker.bootstrap)
    try:
        for scram in (ScramMechanism.SCRAM_SHA_512, ScramMechanism.SCRAM_SHA_256):
            given = [UserScramCredentialUpsertion(name, scram, passwords[name]) for name in RIGHTS]
            assert not any(admin.alter_user_scram_credentials(given).values())
        rights = [_right(user, *right) for user, rights in RIGHTS.items() for right in rights]
        whole = [_right(user, TOPIC, "*", ACLOperation.DESCRIBE) for user in ("plain", "CN=client")]
        assert not admin.create_acls([*rights, *whole])["failed"]
    finally:
        admin.close()


def _right(user: str, kind: ResourceType, name: str, operation: ACLOperation) -> ACL:
    pattern = ACLResourcePatternType.PREFIXED if name.endswith("*") else ACLResourcePatternType.LITERAL
    resource = ResourcePattern(kind, f"{PREFIX}{name.rstrip('*')}", pattern)
    return ACL(f"User:{user}", "*", operation, ACLPermissionType.ALLOW, resource)


def _postgres(directory: Path, authority: Authority) -> PostgresServer:
    certificate = authority.issue("postgres", "127.0.0.1")
    user = places.unprivileged_user()
    if user is not None:
        os.chown(certificate, user.uid, user.gid)
    settings = {"ssl": "on", "ssl_cert_file": str(certificate), "ssl_key_file": str(certificate)}
    small = {"shared_buffers": "32MB", "max_connections": "60"}
    return PostgresServer(PostgresOptions(directory / "postgres", fsync=False, settings={**settings, **small}))


def _keshi(*arguments: str) -> tuple[str, ...]:
    return (sys.executable, "-P", "-m", "keshi.cli", *arguments)


# --- the whole way


def _until(condition: Callable[[], Any]) -> Any:
    end = time.monotonic() + SECONDS
    while not (found := condition()):
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.1)
    return found


def _command(secured: Secured, user: str, *arguments: str, **more: str) -> str:
    done = subprocess.run(
        _keshi(*arguments),
        env=secured.env(user, **more),
        cwd=secured.directory,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    _shows_none(secured, done.stdout + done.stderr)
    return done.stdout


def _shows_none(secured: Secured, text: str) -> None:
    shown = [n for n, secret in enumerate(secured.secrets) if secret in text]
    assert not shown


def test_an_erasure_from_command_to_closure(secured: Secured) -> None:
    """The programs as processes: Kafka by SASL_SSL with SCRAM-SHA-512, PostgreSQL by verify-full, the API by https.

    Each has a user of its own, with the rights that docs/operations.md lists and no more.
    """
    _command(secured, "orchestrator", "ledger", "migrate")
    _command(secured, "topics", "topics", "apply", "--partitions", "2", "--commands-partitions", "1")
    ports = {name: places.free_port() for name in ("orchestrator", "api", "billing")}
    api = {"KESHI_API_PORT": str(ports["api"])}
    with ExitStack() as ending:
        url = ending.enter_context(tls_front(secured.authority.issue("api", "127.0.0.1"), ports["api"]))
        more: dict[str, dict[str, str]] = {
            "orchestrator": {"KESHI_ORCHESTRATOR_HEALTH_PORT": str(ports["orchestrator"])},
            "api": api,
            "billing": {"KESHI_WORKER_HEALTH_PORT": str(ports["billing"]), "KESHI_API_URL": url},
        }
        parts = {}
        for name, own in more.items():
            env = {"KESHI_RECHECK_SECONDS": "1", **secured.env(name, **own)}
            spec = PartSpec(name, _keshi(*PROGRAMS[name]), secured.directory / f"{name}.log", env, secured.directory)
            parts[name] = Part(spec)
            parts[name].start()
            ending.callback(parts[name].stop)
        for name, part in parts.items():
            part.wait_ready(answers(f"http://127.0.0.1:{ports[name]}/readyz"), SECONDS)

        told = _command(secured, "dsar", *PROGRAMS["dsar"], "--timeout", "60")
        assert ["verdict", "fulfilled"] in [line.split("\t")[:2] for line in told.splitlines()]
        request = told.split()[0]
        reader = {"KESHI_API_URL": url, "KESHI_API_CAFILE": str(secured.authority.file)}
        reader["KESHI_API_TOKEN"] = secured.credentials.decider
        assert "closed" in _command(secured, "dsar", "status", request, **reader)

        _what_the_api_sends_reaches_the_orchestrator(secured)
        _nobody_else_reads_commands(secured)
        with psycopg.connect(secured.tls(secured.ledger)) as connection:
            plain = (
                "SELECT count(*) FILTER (WHERE NOT ssl), count(*) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid)"
            )
            found = connection.execute(f"{plain} WHERE application_name = 'keshi'").fetchone()
        assert found is not None
        assert (found[0], found[1] >= 3) == (0, True)
    for name in parts:
        log = (secured.directory / f"{name}.log").read_text(encoding="utf-8", errors="replace")
        _shows_none(secured, log)
        assert not re.search(r"Authorization|send_failed|not_sent|silence_unknown|unexpected", log), log


def _what_the_api_sends_reaches_the_orchestrator(secured: Secured) -> None:
    """A decision is a command. This one is none that can be read: the orchestrator puts it aside."""
    producer = new_producer(secured.kafka("api"), "test")
    try:
        (sent,) = send_all(producer, [Outgoing(f"{PREFIX}commands", b"no command")])
    finally:
        close_producer(producer, 5)
    assert sent is not None
    consumer = new_consumer(KafkaSettings(bootstrap=secured.broker.bootstrap), None)
    consumer.subscribe([f"{PREFIX}quarantine"])
    try:
        _until(lambda: consumer.poll(timeout_ms=200))
    finally:
        consumer.close()
    # What tells a dead worker from a slow one: how far its group is.
    silence = Silence(secured.kafka("orchestrator"))
    silence._look("billing", {0, 1})
    assert silence._committed.keys() == {("billing", 0), ("billing", 1)}


def _nobody_else_reads_commands(secured: Secured) -> None:
    """And what somebody must not see is missing, for all that its program can tell."""
    for user in ("api", "dsar"):
        consumer = new_consumer(secured.kafka(user), None)
        consumer.assign([TopicPartition(f"{PREFIX}commands", 0)])
        with pytest.raises(AuthorizationError):
            _until(partial(consumer.poll, timeout_ms=200))
        consumer.close()
    for user, topic in (("billing", "commands"), ("dsar", "reports")):
        with pytest.raises(ConfigurationError, match=rf"topic keshi\.{topic} is missing"):
            identity(secured.kafka(user), topic)


# --- every way in


@pytest.mark.parametrize(
    ("listener", "user", "how"),
    [
        ("SECURED", "topics", {"sasl_mechanism": "SCRAM-SHA-512"}),
        ("SECURED", "topics", {"sasl_mechanism": "SCRAM-SHA-256"}),
        ("SECURED", "plain", {"sasl_mechanism": "PLAIN"}),
        ("OPEN", "topics", {"security_protocol": "SASL_PLAINTEXT", "sasl_mechanism": "SCRAM-SHA-256"}),
        ("OPEN", "plain", {"security_protocol": "SASL_PLAINTEXT", "sasl_mechanism": "PLAIN"}),
        ("MUTUAL", "plain", {"security_protocol": "SSL"}),
    ],
)
def test_each_way_in_is_open_to_both_clients(secured: Secured, listener: str, user: str, how: dict[str, str]) -> None:
    """kafka-python, which all programs have, and aiokafka, by which the orchestrator reads."""
    certificate = secured.authority.issue("client") if listener == "MUTUAL" else None
    kafka = secured.kafka(user, listener, **how, ssl_certfile=certificate, ssl_keyfile=certificate)
    admin = new_admin(kafka)
    assert admin.describe_cluster()["brokers"]
    admin.close()

    async def join() -> set[str]:
        auth = credentials_to_aiokafka_auth(kafka_credentials(kafka))
        consumer = AIOKafkaConsumer(bootstrap_servers=kafka.bootstrap, **auth)
        await consumer.start()
        try:
            return set(await consumer.topics())
        finally:
            await consumer.stop()

    assert isinstance(asyncio.run(join()), set)


# --- what is set wrongly


@pytest.fixture(scope="module")
def migrated(secured: Secured) -> None:
    """A ledger for programs that open it before they look for Kafka."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("KESHI_LEDGER_URL", secured.tls(secured.ledger))
        assert run(["ledger", "migrate"]) == 0


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ("KESHI_KAFKA_SASL_PASSWORD", "does not know this user or password by SCRAM-SHA-512"),
        ("KESHI_KAFKA_SSL_CAFILE", "has a certificate that is not to be trusted"),
    ],
)
@pytest.mark.usefixtures("migrated")
def test_no_program_starts_and_each_says_which_setting(secured: Secured, wrong: str, named: str) -> None:
    """A wrong password, or the CA of somebody else: one line, exit code 2, and no secret."""
    word = f"wrong-{uuid4().hex}"
    value = word if wrong.endswith("PASSWORD") else str(secured.stranger.file)
    running = {
        name: subprocess.Popen(
            _keshi(*arguments),
            env=secured.env(name, **{wrong: value}),
            cwd=secured.directory,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for name, arguments in PROGRAMS.items()
    }
    try:
        for name, process in running.items():
            out, err = process.communicate(timeout=SECONDS)
            assert process.returncode == 2, (name, err)
            (line,) = [text for text in err.splitlines() if not text.startswith("{")]
            assert line.startswith(f"keshi: Kafka at {secured.broker.address('SECURED')} {named}"), name
            assert wrong in line
            assert word not in out + err
            _shows_none(secured, out + err)
    finally:
        for process in running.values():
            process.kill()


@pytest.mark.parametrize(
    ("listener", "how", "named"),
    [
        ("SECURED", {"sasl_mechanism": "PLAIN"}, "KESHI_KAFKA_SASL_MECHANISM"),
        ("SECURED", {"sasl_password": None}, "KESHI_KAFKA_SASL_USERNAME and KESHI_KAFKA_SASL_PASSWORD"),
        ("SECURED", {"ssl_cafile": Path("/nowhere/ca.pem")}, "KESHI_KAFKA_SSL_CAFILE"),
        ("SECURED", {"ssl_certfile": Path("/nowhere/tls.crt")}, "KESHI_KAFKA_SSL_CERTFILE"),
        ("SECURED", {"security_protocol": "PLAINTEXT"}, "KESHI_KAFKA_SECURITY_PROTOCOL"),
        ("SECURED", {"security_protocol": "SASL_PLAINTEXT"}, "KESHI_KAFKA_SECURITY_PROTOCOL"),
        ("SECURED", {"security_protocol": "SSL"}, "KESHI_KAFKA_SECURITY_PROTOCOL"),
        ("OPEN", {}, "KESHI_KAFKA_SECURITY_PROTOCOL"),
        ("MUTUAL", {"security_protocol": "SSL"}, "KESHI_KAFKA_SSL_CERTFILE"),
    ],
)
def test_what_does_not_fit_is_named(secured: Secured, listener: str, how: dict[str, Any], named: str) -> None:
    """Each setting that has to do with it. What may pass is tried for as long as a broker may take to start."""
    settings = secured.kafka("topics", listener, **how)
    with pytest.raises((ConfigurationError, NotLetInError)) as caught:
        KafkaAdminClient(**client_config(settings), bootstrap_timeout_ms=1_500)
    line = str(unreachable(settings, caught.value) if isinstance(caught.value, NotLetInError) else caught.value)
    assert named in line
    assert "\n" not in line
    _shows_none(secured, line)


@pytest.mark.parametrize("kind", [KafkaAdminClient, KafkaConsumer, KafkaProducer])
def test_a_client_that_is_not_let_in_leaves_nothing_running(secured: Secured, kind: Any) -> None:
    """Some are made again and again while a broker is away."""
    before = set(threading.enumerate())
    with pytest.raises(NotLetInError):
        kind(**client_config(secured.kafka("topics", sasl_password="wrong")), bootstrap_timeout_ms=1_500)
    assert not set(threading.enumerate()) - before


def test_a_certificate_for_another_name_is_refused(secured: Secured) -> None:
    """Checked is not only who signed it."""
    alone = secured.authority.issue("elsewhere", "elsewhere.example")
    with tls_front(alone, 1) as url, pytest.raises(ConfigurationError, match=r"IP address mismatch.*BOOTSTRAP"):
        new_admin(secured.kafka("topics", bootstrap=url.removeprefix("https://")))


def test_the_ledgers_database_is_checked(
    secured: Secured, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], migrated: None
) -> None:
    """Its certificate, its name, our password: one line that says which, and exit code 2."""
    good = secured.tls(secured.ledger)
    word = good.split(":")[2].partition("@")[0]
    wrong = {
        secured.tls(secured.ledger, secured.stranger): "its certificate is signed by none of sslrootcert",
        good.replace("127.0.0.1", "localhost"): "its certificate is for another host",
        good.replace(word, "wrong"): "it does not know this user or password",
        good.replace(str(secured.authority.file), "/nowhere.pem"): "there is no CA file where sslrootcert says",
    }
    for url, named in wrong.items():
        monkeypatch.setenv("KESHI_LEDGER_URL", url)
        assert run(["ledger", "check"]) == 2
        line = f"the ledger's database does not let us in, {named}: see KESHI_LEDGER_URL"
        assert capsys.readouterr().err == f"keshi: {line}\n"
        with pytest.raises(ConfigurationError, match=re.escape(line)):
            open_ledger(OrchestratorSettings())
    open_ledger(OrchestratorSettings(ledger_url=good)).close()


def test_a_handlers_database_is_checked(secured: Secured, capsys: pytest.CaptureFixture[str]) -> None:
    """Its worker is not ready, and the log names the setting and what is wrong."""
    unknown = Database(secured.tls(secured.billing, secured.stranger), setting="KESHI_BILLING_DSN")
    known = Database(secured.tls(secured.billing), setting="KESHI_BILLING_DSN")
    try:
        assert (known.ready(), unknown.ready()) == (True, False)
    finally:
        known.close()
        unknown.close()
    said = capsys.readouterr().out
    assert "database_lets_nobody_in" in said
    assert "KESHI_BILLING_DSN" in said
    assert "its certificate is signed by none of sslrootcert" in said
    _shows_none(secured, said)


def test_the_apis_certificate_is_checked(
    secured: Secured, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Who looks at requests is told which setting is wrong; the token has not gone out."""
    monkeypatch.setenv("KESHI_API_TOKEN", secured.credentials.decider)
    with tls_front(secured.authority.issue("front", "127.0.0.1"), 1) as url:
        monkeypatch.setenv("KESHI_API_URL", url)
        monkeypatch.setenv("KESHI_API_CAFILE", str(secured.stranger.file))
        assert run(["status"]) == 2
    said = capsys.readouterr().err
    assert re.fullmatch(r"keshi: the API at \S+ has a certificate that is not to be trusted .*CAFILE.*\n", said)
    _shows_none(secured, said)
