"""Settings by environment, `KESHI_…`. Secrets are shown by nothing here."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict, SettingsError


class ConfigurationError(Exception):
    """keshi cannot start as it is set up. The message says, in one line, what to do."""


class Environment(StrEnum):
    """Where a process runs. Failpoints exist in development alone."""

    DEVELOPMENT = "development"
    PRODUCTION = "production"


def _config(prefix: str) -> SettingsConfigDict:
    return SettingsConfigDict(env_prefix=prefix, frozen=True, extra="ignore", hide_input_in_errors=True)


class KafkaSettings(BaseSettings):
    """How to reach Kafka (`KESHI_KAFKA_…`)."""

    model_config = _config("KESHI_KAFKA_")

    bootstrap: str = Field(default="127.0.0.1:9092", description="host:port, several by comma")
    prefix: Annotated[str, Field(pattern=r"^[a-zA-Z0-9._-]{0,60}$")] = "keshi."
    security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = "PLAINTEXT"
    sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] = "SCRAM-SHA-512"
    sasl_username: str | None = None
    sasl_password: SecretStr | None = None
    ssl_cafile: Path | None = None
    ssl_certfile: Path | None = None
    ssl_keyfile: Path | None = None
    session_timeout_seconds: Annotated[float, Field(ge=1, le=300)] = 10

    def topic(self, name: str) -> str:
        """The full name of a topic, such as `keshi.tasks.billing`."""
        return f"{self.prefix}{name}"


class ApiClientSettings(BaseSettings):
    """How workers and the command line reach the API (`KESHI_API_…`)."""

    model_config = _config("KESHI_API_")

    url: str = "http://127.0.0.1:8420"
    token: SecretStr = SecretStr("")
    cafile: Path | None = None
    timeout_seconds: Annotated[float, Field(gt=0, le=60)] = 5


class WorkerSettings(BaseSettings):
    """How a worker works (`KESHI_WORKER_…`)."""

    model_config = _config("KESHI_WORKER_")

    concurrency: Annotated[int, Field(ge=1, le=64, description="tasks at a time, per system")] = 4
    tries: Annotated[int, Field(ge=1, le=20, description="tries of one step within an attempt")] = 4
    retry_seconds: Annotated[float, Field(gt=0, le=600, description="time for all tries of one step")] = 20
    list_seconds: Annotated[float, Field(gt=0, le=3600, description="time budget of one list")] = 60
    health_port: Annotated[int, Field(ge=0, le=65535, description="0: any free port")] = 0
    allowed_handlers: Annotated[str, Field(description="systems, by comma; empty: those named on the command line")] = (
        ""
    )


class KeySettings(BaseSettings):
    """The key-encryption keys (`KESHI_KEK…`): lines of `id base64`, the first is used for new keys."""

    model_config = _config("KESHI_")

    kek: SecretStr | None = None
    kek_file: Path | None = None


class OrchestratorSettings(BaseSettings):
    """Orchestrator and API (`KESHI_…`)."""

    model_config = _config("KESHI_")

    ledger_url: SecretStr = SecretStr("")
    inventory: Path = Path("inventory.yaml")
    tokens_file: Path = Path("tokens.yaml")
    orchestrator_group: str = "keshi.orchestrator"
    orchestrator_health_port: Annotated[int, Field(ge=0, le=65535)] = 0
    lease_seconds: Annotated[float, Field(ge=1, le=300)] = 10
    max_attempts: Annotated[int, Field(ge=1, le=100)] = 8
    max_acts: Annotated[int, Field(ge=1, le=20)] = 3
    retry_schedule: Annotated[
        tuple[Annotated[float, Field(gt=0, le=2_592_000)], ...], Field(min_length=1, description="seconds")
    ] = (60, 300, 1800, 7200, 21600, 86400)
    silence_seconds: Annotated[float, Field(ge=1, le=86400)] = 60
    recheck_seconds: Annotated[float, Field(ge=0.5, le=3600)] = 15
    api_host: str = "127.0.0.1"
    api_port: Annotated[int, Field(ge=0, le=65535)] = 8420
    commands_retention_days: Annotated[float, Field(gt=0, le=365)] = 7


class ProcessSettings(BaseSettings):
    """Common to all processes (`KESHI_…`)."""

    model_config = _config("KESHI_")

    environment: Environment = Environment.PRODUCTION
    failpoints_dir: Path | None = None
    health_host: Annotated[str, Field(description="where /healthz and /readyz of a process listen")] = "127.0.0.1"
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_format: Literal["json", "console"] = "json"


S = TypeVar("S", bound=BaseSettings)


def load(kind: type[S], **override: Any) -> S:
    """Read settings from the environment.

    Raises:
        ConfigurationError: naming the variable and what is wrong with it, never its value.
    """
    try:
        return kind(**override)
    except ValidationError as e:
        first = e.errors(include_input=False, include_url=False)[0]
        prefix = kind.model_config.get("env_prefix", "")
        name = f"{prefix}{'_'.join(str(p) for p in first['loc'][:1])}".upper()
        raise ConfigurationError(f"{name}: {first['msg']}") from None
    except SettingsError as e:
        # Raised for a list or a mapping whose text is no JSON; it names the field, quoted, and no value.
        field = next((f for f in kind.model_fields if f'"{f}"' in str(e)), "")
        name = f"{kind.model_config.get('env_prefix', '')}{field}".upper()
        raise ConfigurationError(f"{name}: expected JSON, such as [60, 300] or an object") from None
