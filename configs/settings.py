"""Machine facts: where things lie and who is asking. Clinical facts stand in the Spec, never here."""

import os
from functools import cached_property
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from configs.errors import SpecError

ROOT = Path(__file__).resolve().parent.parent

PHONE_HOME_OFF = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "BENTOML_DO_NOT_TRACK": "True",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "GX_ANALYTICS_ENABLED": "false",
    "DVC_NO_ANALYTICS": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "DO_NOT_TRACK": "1",
}


Absolute = Annotated[Path, AfterValidator(Path.absolute)]


class Settings(BaseSettings):
    """This machine, from `MEDIMIND_*` variables. Frozen; made by `settings()` at each entry point."""

    model_config = SettingsConfigDict(env_prefix="MEDIMIND_", frozen=True, extra="forbid")

    home: Absolute = ROOT / "var"
    """State: ledger, registry, bundle store, reports, logs, keys. Readable by its owner alone."""

    configs: Absolute = ROOT / "configs"
    """The folder with `diseases/` and `enabled.yaml`."""

    data: Absolute = ROOT / "data"
    """The folder with `raw/ records/ cohorts/ bundles/`."""

    ledger: str = ""
    """SQLAlchemy URL of the ledger; empty: SQLite under `home`."""

    registry: str = ""
    """MLflow tracking URI; empty: SQLite under `home`."""

    signing_key: SecretStr = SecretStr("")
    """What signs bundles: a private key's path, or the PEM itself; empty: a key that is made under `home`."""

    trust: str = ""
    """The file of the public keys whose signatures count; empty: one under `home`."""

    alerts: SecretStr = SecretStr("")
    """Who is told of a monitoring finding that failed, besides the log: apprise's addresses, separated by spaces."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where networks learn, and where the server computes them: `auto` is a card where there is one. All else is the
    CPU's."""

    device_memory_mb: Annotated[int, Field(gt=0)] | None = None
    """What a worker's networks may take of it together; None: four fifths of what a card has free at the start."""

    devices: Annotated[int, Field(gt=0)] = 1
    """How many processes of this machine train one network together, each on a card of its own, or on the CPU."""

    nodes: Annotated[int, Field(gt=0)] = 1
    """How many machines do, each with as many; MASTER_ADDR, MASTER_PORT and NODE_RANK say where and which it is."""

    port: int = 8400
    user: str = ""
    """Who acts, for the audit; empty: the operating system's user."""

    @cached_property
    def ledger_url(self) -> str:
        return self.ledger or sqlite_url(self.home / "ledger.db")

    @cached_property
    def registry_uri(self) -> str:
        return self.registry or sqlite_url(self.home / "mlflow" / "mlflow.db")

    @property
    def store(self) -> Path:
        """The bundle store: one folder a bundle, named by its digest."""
        return self.home / "bundles"

    @property
    def encoders(self) -> Path:
        """The encoder store: one folder an encoder, named by its digest."""
        return self.home / "encoders"

    @property
    def embeddings(self) -> Path:
        """What encoders made of patients' texts and signals, kept so that each is computed once."""
        return self.home / "embeddings"

    @property
    def signing_file(self) -> Path:
        """The private key that signs bundles here, where none is given."""
        return self.home / "keys" / "signing.pem"

    @property
    def trust_file(self) -> Path:
        return Path(self.trust).absolute() if self.trust else self.home / "keys" / "trusted.json"

    @property
    def reports(self) -> Path:
        return self.home / "reports"

    @property
    def actor(self) -> str:
        if self.user:
            return self.user
        import getpass

        return getpass.getuser()

    def private(self, folder: Path) -> Path:
        """Make `folder` (and the folders above it) readable by its owner alone, and return it."""
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        if folder == self.home or self.home in folder.parents:
            os.chmod(self.home, 0o700)
            os.chmod(folder, 0o700)
        return folder


def sqlite_url(path: Path) -> str:
    """The URL of a SQLite file; SQLAlchemy reads %41 in one as A."""
    return f"sqlite:///{str(path).replace('%', '%25')}"


def settings() -> Settings:
    """Read the machine's facts, and switch every library's phone-home off for this process and its children."""
    for variable, off in PHONE_HOME_OFF.items():
        os.environ.setdefault(variable, off)
    try:
        return Settings()
    except ValidationError as exc:
        first = exc.errors()[0]
        name = "MEDIMIND_" + "_".join(str(part) for part in first["loc"]).upper()
        raise SpecError(f"{name}: {first['msg']} (got {first['input']!r}).") from exc
