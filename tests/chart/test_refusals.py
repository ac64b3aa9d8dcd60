"""What the chart does not take, and what it says then."""

import pytest

from chart.rendering import CHART, RefusedError, call, template, values_of

_ONE = ("--set=ledger.kind=sqlite", "--set=api.replicas=1", "--set=orchestrator.replicas=1")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--set=ledger.kind=sqlite"], "'postgres', 'sqlite, with orchestrator.replicas 1'"),
        ([*_ONE, "--set=orchestrator.replicas=2"], "'postgres', 'sqlite, with orchestrator.replicas 1'"),
        ([*_ONE, "--set=api.replicas=2"], "'postgres', 'sqlite, with api.replicas 1'"),
        (
            [*_ONE, "--set=orchestrator.replicas=2", "--skip-schema-validation"],
            "orchestrator.replicas is 2 and ledger.kind is sqlite: SQLite takes one orchestrator on one host",
        ),
        (
            [*_ONE, "--set=api.replicas=2", "--skip-schema-validation"],
            "the API runs in the orchestrator's pod, once. Set api.replicas to 1",
        ),
        (["--set=kafka.bootstrap="], "kafka.bootstrap: name your brokers"),
        (["--set=image.core.repository="], "image.core.repository: name the image"),
        (["--set=image.handlers.repository="], "image.handlers.repository: name the image"),
        (["--set=inventory.configMap="], "no inventory: give it with --set-file inventory.content=inventory.yaml"),
        (["--set=inventory.content=version: 1"], "inventory.content and inventory.configMap are both given"),
        (["--set=api.tokens.content=a", "--set=api.tokens.configMap=b"], "are both given: take one of them out"),
        (["--set=api.port=8421"], "api.port and healthPort are both 8421"),
        (["--set=orchestrator.replicas=13"], "orchestrator.replicas is 13, and there are 12 partitions"),
        (["--set=handlers.crm.replicas=13"], "handlers.crm.replicas is 13, and there are 12 partitions"),
        (
            ["--set=handlers.crm.autoscaling.enabled=true", "--set=handlers.crm.autoscaling.maxReplicas=13"],
            "handlers.crm.autoscaling.maxReplicas is 13, and there are 12 partitions",
        ),
        (
            ["--set=handlers.crm.autoscaling.enabled=true", "--set=handlers.crm.autoscaling.minReplicas=9"],
            "handlers.crm.autoscaling: minReplicas is more than maxReplicas",
        ),
        (["--set=handlers.crm.secret.name=keshi-api"], "api and handler-crm name the same Secret, keshi-api"),
        (["--set=handlers.ma-tool.replicas=1"], "handlers.ma-tool and handlers.ma_tool would have the same name"),
        (["--set=handlers.all.systems={billing}"], "handlers.all and handlers.billing both serve billing"),
        (
            ["--set=handlers.crm.env.KESHI_API_URL=x", "--skip-schema-validation"],
            "handler-crm: KESHI_API_URL is set already",
        ),
        (["--set=handlers.crm.secret.env.KESHI_API_URL=x"], "handler-crm: KESHI_API_URL is set already"),
        (["--kube-version=1.29.0"], "incompatible with Kubernetes"),
    ],
)
def test_what_cannot_work_is_refused_with_the_reason(arguments: list[str], says: str) -> None:
    with pytest.raises(RefusedError) as refused:
        template("default", *arguments)
    assert says in str(refused.value)


@pytest.mark.parametrize(
    "argument",
    [
        "kafka.bootstraps=kafka.example:9092",
        "orchestrator.securityContext.privileged=true",
        "api.secret.values.kek=AAAA",
        "handlers.crm.command={sh}",
        "image.core.tag=latest",
        "image.core.digest=sha256:12",
        "user.uid=0",
        "ledger.kind=mysql",
        "topics.partitions=0",
        "kafka.securityProtocol=TLS",
        "handlers.CRM.replicas=1",
        "networkPolicy.apiFrom[0].cidr=everybody",
    ],
)
def test_a_value_that_is_not_in_the_schema_is_refused(argument: str) -> None:
    with pytest.raises(RefusedError, match="don't meet the specifications of the schema"):
        template("default", f"--set={argument}")


@pytest.mark.parametrize(
    "argument",
    [
        "env.KESHI_LEDGER_URL=postgresql://u:p@host/db",
        "env.KESHI_KEK=id AAAA",
        "orchestrator.env.KESHI_KAFKA_SASL_PASSWORD=secret",
        "handlers.crm.env.KESHI_CRM_TOKEN=secret",
        "handlers.billing.env.KESHI_BILLING_DSN=postgresql://u:p@host/db",
        "handlers.newsletter.env.NEWSLETTER_PASSWORD=secret",
        "env.AWS_SECRET_ACCESS_KEY=secret",
        "env.OTEL_EXPORTER_OTLP_HEADERS=authorization=secret",
    ],
)
def test_a_secret_among_the_values_is_refused(argument: str) -> None:
    with pytest.raises(RefusedError, match="invalid propertyName"):
        template("default", f"--set-string={argument}")


@pytest.mark.parametrize(
    "argument",
    [
        "orchestrator.env.KESHI_MAX_ATEMPTS=3",
        "env.KESHI_ENVIRONMENT=development",
        "env.KESHI_FAILPOINTS_DIR=x",
        "handlers.crm.env.KESHI_WORKER_CONCURENCY=3",
        "handlers.crm.env.KESHI_DEV_HANDLERS=crm=x:Y",
    ],
)
def test_a_setting_that_does_not_exist_or_is_for_tests_is_refused(argument: str) -> None:
    with pytest.raises(RefusedError, match="invalid propertyName"):
        template("default", f"--set-string={argument}")


@pytest.mark.parametrize("verb", ["lint", "template"])
def test_sqlite_with_two_orchestrators_is_refused_by_every_way_in(verb: str) -> None:
    names = ["keshi"] if verb == "template" else ["--strict"]
    with pytest.raises(RefusedError, match=r"sqlite, with orchestrator\.replicas 1"):
        call(verb, *names, str(CHART), *values_of("sqlite"), "--set=orchestrator.replicas=2")
