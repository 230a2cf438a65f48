"""Facts about this machine and its secrets: `SEGFOUNDRY_*` environment variables, read once.

Science knobs live in `params.yaml`, facts about a dataset in its card. Nothing here may change what a
DVC stage writes, except the pseudonym key, which is a secret and therefore no file of the repository.
"""

from __future__ import annotations

import os
from pathlib import Path

from pydantic import Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from infra.errors import UsageError

PREFIX = "SEGFOUNDRY_"


class Settings(BaseSettings):
    """What the environment says about this machine."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, extra="ignore")

    mirror: str = Field(default="", description="folder or fsspec URL with one folder per dataset")
    workspace: str = Field(default="", description="the workspace where no --workspace is given")
    offline: bool = Field(default=False, description="never open a network connection for data")
    pseudonym_key: str = Field(default="", description="secret that group identifiers are hashed with")
    max_download_bytes: int = Field(default=2_000_000_000, ge=0, description="largest official download, bytes")
    ledger_url: str = Field(default="", description="database of the promotion ledger; default: MLflow's database")
    webhook_url: SecretStr = Field(default=SecretStr(""), description="address that is told when an alias moves")
    webhook_secret: SecretStr = Field(default=SecretStr(""), description="what its signatures are made with")
    num_cpus: int = Field(default=0, ge=0, description="logical CPUs Ray may use; 0: all")
    object_store_bytes: int = Field(default=256 * 1024 * 1024, ge=80 * 1024 * 1024)
    cache_dir: str = Field(default="", description="disk of each machine for copies of remote shards; default: the run")
    cache_bytes: int = Field(default=64 << 30, ge=1 << 20, description="most bytes of remote shards kept there")
    concurrent_datasets: int = Field(default=3, ge=1, description="datasets ingested at the same time")
    stage_timeout_s: float = Field(default=43_200, gt=0, description="longest that one stage of a flow may take")
    release_timeout_s: float = Field(default=3_600, gt=0, description="longest for sources, gates, registry, audit")
    flow_timeout_s: float = Field(default=172_800, gt=0, description="longest that a whole flow may take")
    retries: int = Field(default=5, ge=0, description="how often a flow's step that may heal is tried again")
    retry_delay_s: float = Field(default=2, ge=0, description="before the first retry; doubles each time")
    lock_patience_s: float = Field(default=3_600, ge=0, description="how long a served run waits for another run")
    watch: str = Field(default="", description="folder or fsspec URL whose sub-folders are datasets that arrive")
    watch_every_s: float = Field(default=30, gt=0, description="how often the watched place is listed")
    watch_settle_s: float = Field(default=60, ge=0, description="how long a dropped folder must be at rest")
    retrain_cron: str = Field(default="0 2 * * 0", description="when `flow serve` retrains; empty: never by the clock")
    audit_cron: str = Field(default="0 4 * * *", description="when `flow serve` audits; empty: never by the clock")
    timezone: str = Field(default="UTC", description="of both, e.g. Europe/Berlin")

    @field_validator("mirror", "watch")
    @classmethod
    def _absolute(cls, value: str) -> str:
        """A relative folder means: from where the user stands, also inside a Ray or DVC process."""
        return value if not value or "://" in value else str(Path(value).expanduser().resolve())

    @property
    def cpus(self) -> int:
        """Logical CPUs for Ray: what is asked for, else all that this process may run on; at least 2.

        Two because Ray Train runs two workers: on one core they share it rather than wait for ever.
        """
        found = self.num_cpus or len(os.sched_getaffinity(0))
        return max(2, found)


def load_settings() -> Settings:
    """Read the environment; a bad value is a `UsageError` that names the variable."""
    try:
        return Settings()
    except ValidationError as error:
        first = error.errors()[0]
        name = PREFIX + "_".join(str(part) for part in first["loc"]).upper()
        msg = f"environment variable {name}: {first['msg']}, found {first.get('input')!r}. Set it right or unset it."
        raise UsageError(msg) from error


def tracking_uri(workspace: Path) -> str:
    """Where MLflow writes: `MLFLOW_TRACKING_URI`, else a sqlite file in the workspace."""
    return os.environ.get("MLFLOW_TRACKING_URI", "") or f"sqlite:///{(workspace / 'mlflow.db').resolve()}"


def resolve_workspace(option: Path | None, fallback: str) -> Path:
    """`--workspace`, else `SEGFOUNDRY_WORKSPACE`, else `workspaces/<fallback>` under the current folder."""
    chosen = option or Path(load_settings().workspace or Path("workspaces") / fallback)
    return chosen.expanduser().resolve()
