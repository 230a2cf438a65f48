"""MLflow as the store of model versions: one call registers a candidate, twice is once.

The version row is written last, with all its tags, in one transaction of MLflow's database: a version
that exists is whole. A run without one was cut off; the next call deletes it and starts over.
"""

from __future__ import annotations

import contextlib
import os
import re
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from infra.errors import DataError, ServiceError, UsageError
from infra.storage import read_json, sha256_file, write_json
from registry import tracking
from registry.artifacts import ArtifactGone, read_json_artifact
from registry.database import make_database
from registry.environment import no_progress_bars, quiet_mlflow
from registry.gate import GateReport
from registry.ledger import Ledger
from registry.lineage import TAG, Lineage, evaluation_digest, version_tags
from registry.model_card import write_model_card
from registry.packaging import Example, save_pyfunc

if TYPE_CHECKING:
    from registry.webhooks import Webhook

COMPLETE = f"{TAG}complete"
REGISTRATION = f"{TAG}registration"
EXPERIMENT = "segfoundry"
LINEAGE_FILE = "lineage.json"
PARAMETERS_FILE = "parameters.json"
CARD_FOLDER = "model_card"
GATE_FILE = "gate.json"


@dataclass(frozen=True)
class Registered:
    """A model version in the store; `created` is False where it was there before."""

    name: str
    version: int
    run_id: str
    created: bool


@dataclass(frozen=True)
class ModelVersion:
    """What the store says about a version, without files."""

    name: str
    version: int
    run_id: str
    tags: dict[str, str]
    aliases: tuple[str, ...]

    @property
    def weights_sha256(self) -> str:
        """SHA-256 of the version's weights."""
        return self.tags.get(f"{TAG}weights_sha256", "")


class RegistryStore:
    """The registry behind one MLflow tracking URI.

    `artifact_root` is where files go when the URI is a database; a tracking server has its own.
    `ledger_url` is the ledger's database; by default the tracking database. `temporary` is where files are
    put together before they are logged; by default the machine's temporary folder. `webhook` is told when an alias
    moves.
    """

    def __init__(
        self,
        tracking_uri: str,
        artifact_root: Path | None = None,
        *,
        ledger_url: str | None = None,
        temporary: Path | None = None,
        webhook: Webhook | None = None,
    ) -> None:
        self.tracking_uri = tracking_uri
        self.artifact_root = artifact_root
        self._ledger_url = ledger_url
        self._temporary = temporary
        self.webhook = webhook

    @cached_property
    def client(self) -> Any:
        """MLflow's client, made on first use: its import costs 2 s, a fresh database some more."""
        quiet_mlflow()
        from mlflow import MlflowClient
        from mlflow.exceptions import MlflowException

        try:
            make_database(self.tracking_uri)
            return MlflowClient(tracking_uri=self.tracking_uri, registry_uri=self.tracking_uri)
        except MlflowException as error:
            msg = f"MLflow at {self.tracking_uri} cannot be opened: {error}; check the address"
            raise ServiceError(msg) from error

    @cached_property
    def ledger(self) -> Ledger:
        """The promotion ledger of this registry."""
        url = self._ledger_url or self.tracking_uri
        if "://" not in url or url.startswith(("http", "file", "databricks")):
            msg = f"the ledger needs a database (sqlite:///… or postgresql://…), found {url!r}; pass ledger_url"
            raise UsageError(msg)
        if not self._ledger_url:
            # MLflow makes a sqlite file its own before anybody else writes to it.
            self.client.search_registered_models(max_results=1)
        return Ledger(url)

    def register(
        self,
        candidate: Path,
        evaluation: Path,
        lineage: Lineage,
        params: dict[str, Any],
        *,
        model_name: str,
        example: Example,
        report: Path | None = None,
        overlays: int = 128,  # all that an evaluation draws of some twenty datasets
        serving: dict[str, Any] | None = None,
    ) -> Registered:
        """Register a candidate with all that is known about it; the same candidate again changes nothing.

        The same candidate is: same weights, same evaluation. `params` is the resolved recipe; `lineage` comes
        from `registry.lineage.build_lineage`; `overlays` limits the pictures; `serving` says how the training data
        was read (`preprocessing.serving`). Raises DataError where weights
        and evaluation do not belong together.
        """
        figures = read_json(evaluation / "evaluation.json")
        self._check_weights(candidate, figures)
        key = f"{figures['weights_sha256']}.{evaluation_digest(figures)}"
        found = self._existing(model_name, key)
        if found is not None:
            self._finish(found)
            return Registered(model_name, found.version, found.run_id, created=False)
        experiment = self._experiment(model_name)
        self._drop_half_made(experiment, key)
        client = self.client
        run = client.create_run(experiment, tags={REGISTRATION: key, COMPLETE: "false"}, run_name=model_name)
        run_id: str = run.info.run_id
        tracking.log_parameters(client, run_id, params)
        tracking.log_metrics(client, run_id, figures)
        tracking.log_curve(client, run_id, candidate / "history.jsonl")
        tracking.log_inputs(client, run_id, lineage)
        tags = version_tags(lineage, figures)
        tracking.log_tags(client, run_id, tags)
        tracking.log_files(client, run_id, evaluation, overlays=overlays, report=report)
        self.log_json(run_id, LINEAGE_FILE, lineage)
        self.log_json(run_id, PARAMETERS_FILE, lineage.get("parameters") or params)
        with self._scratch() as folder:
            for path in write_model_card(folder, figures, lineage, model_name):
                client.log_artifact(run_id, str(path), CARD_FOLDER)
        model_id, source = self._log_model(candidate, experiment, run_id, model_name, example, tags, serving)
        _ensure_registered_model(client, model_name)
        version = client.create_model_version(
            model_name, source, run_id=run_id, model_id=model_id, tags={**tags, REGISTRATION: key, COMPLETE: "true"}
        )
        self._finish(_model_version(version, ()))
        return Registered(model_name, int(version.version), run_id, created=True)

    def versions(self, name: str) -> list[ModelVersion]:
        """All whole versions of a model, newest first."""
        aliases: dict[int, list[str]] = {}
        for alias, version in self.aliases(name).items():
            aliases.setdefault(version, []).append(alias)
        # A filter of MLflow's knows no escape: a name that could end its own quotes is picked out of all versions.
        by_name = () if set(name) & set("'\\") else (f"name = '{name}'",)
        found = tracking.all_pages(self.client.search_model_versions, *by_name)
        versions = [
            _model_version(one, tuple(sorted(aliases.get(int(one.version), ())))) for one in found if one.name == name
        ]
        return sorted(versions, key=lambda one: one.version, reverse=True)

    def aliases(self, name: str) -> dict[str, int]:
        """Alias -> version number; empty where the model is not known."""
        from mlflow.exceptions import MlflowException

        try:
            model = self.client.get_registered_model(name)
        except MlflowException as error:
            if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):  # the latter: no name at all
                return {}
            raise
        return {alias: int(version) for alias, version in model.aliases.items()}

    def resolve(self, name: str, version_or_alias: str | int) -> ModelVersion:
        """The version of a number, "v3" or an alias; UsageError where there is none."""
        text = str(version_or_alias).removeprefix("@")
        number = self.aliases(name).get(text)
        if number is None and re.fullmatch(r"v?\d+", text):
            number = int(text.removeprefix("v"))
        versions = self.versions(name)
        for one in versions:
            if one.version == number:
                return one
        known = (
            ", ".join(f"{one.version}{''.join(f' @{alias}' for alias in one.aliases)}" for one in versions) or "none"
        )
        msg = f"model {name}: expected a version or an alias that exists ({known}), found {version_or_alias!r}"
        raise UsageError(msg)

    def our_models(self) -> list[str]:
        """Names of the models that have a version with our lineage, sorted.

        Other teams may keep theirs in the same MLflow: those are neither searched nor judged.
        """
        found = tracking.all_pages(self.client.search_model_versions, f"tags.`{TAG}weights_sha256` LIKE '%'")
        return sorted({str(one.name) for one in found})

    def evaluation_of(self, name: str, version_or_alias: str | int) -> dict[str, Any]:
        """The `evaluation.json` that a version was registered with. ArtifactGone where it was deleted since."""
        value: dict[str, Any] = self.read_json_artifact(
            self.resolve(name, version_or_alias).run_id, "evaluation/evaluation.json"
        )
        return value

    def lineage_of(self, name: str, version_or_alias: str | int) -> Lineage:
        """The lineage that a version was registered with."""
        value: Lineage = self.read_json_artifact(self.resolve(name, version_or_alias).run_id, LINEAGE_FILE)
        return value

    def gate_of(self, name: str, version_or_alias: str | int) -> GateReport | None:
        """The gate report that a version was last judged by; None where it was not judged."""
        version = self.resolve(name, version_or_alias)
        if f"{TAG}gate" not in version.tags:
            return None
        return GateReport.from_dict(self.read_json_artifact(version.run_id, GATE_FILE))

    def parameters_of(self, name: str, version_or_alias: str | int) -> dict[str, str]:
        """The parameters logged with a version. ArtifactGone where its run was deleted since."""
        from mlflow.exceptions import MlflowException

        run_id = self.resolve(name, version_or_alias).run_id
        try:
            return dict(self.client.get_run(run_id).data.params)
        except MlflowException as error:
            if error.error_code == "RESOURCE_DOES_NOT_EXIST":
                msg = f"MLflow run {run_id}: expected the parameters of its training, found that it was deleted"
                raise ArtifactGone(msg) from error
            raise

    def log_json(self, run_id: str, name: str, value: Any) -> None:
        """Write `value` as the JSON artifact `name` of a run."""
        with self._scratch() as folder:
            path = folder / name
            write_json(path, value)
            self.client.log_artifact(run_id, str(path))

    def log_report(self, registered: Registered | ModelVersion, report: Path) -> None:
        """Keep the HTML report with the version: it can only be written once the version has its number."""
        self.client.log_artifact(registered.run_id, str(report), "report")

    def read_json_artifact(self, run_id: str, path: str) -> Any:
        """A JSON artifact of a run; see `registry.artifacts.read_json_artifact`."""
        return read_json_artifact(self, run_id, path)

    @contextlib.contextmanager
    def artifact(self, run_id: str, path: str) -> Iterator[Path]:
        """A copy of an artifact of a run, for the block."""
        with self._scratch() as folder, no_progress_bars():
            yield Path(self.client.download_artifacts(run_id, path, str(folder)))

    def has_artifact(self, run_id: str, path: str) -> bool:
        """Whether a run holds an artifact; not where the run itself was deleted."""
        from mlflow.exceptions import MlflowException

        try:
            return any(one.path == path for one in self.client.list_artifacts(run_id, path.rpartition("/")[0]))
        except MlflowException as error:
            if error.error_code == "RESOURCE_DOES_NOT_EXIST":
                return False
            raise

    @contextlib.contextmanager
    def _scratch(self) -> Iterator[Path]:
        """A folder for the block, named after this process: what a killed one left can be told from one at work."""
        if self._temporary is not None:
            self._temporary.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f"{os.getpid()}-", dir=self._temporary) as folder:
            yield Path(folder)

    def _check_weights(self, candidate: Path, figures: dict[str, Any]) -> None:
        found = sha256_file(candidate / "model.safetensors")
        if figures.get("weights_sha256") != found:
            msg = (
                f"{candidate}: expected the weights that were evaluated ({str(figures.get('weights_sha256'))[:12]}), "
                f"found {found[:12]}; run the evaluation again"
            )
            raise DataError(msg)

    def _existing(self, name: str, key: str) -> ModelVersion | None:
        return next((one for one in self.versions(name) if one.tags.get(REGISTRATION) == key), None)

    def _experiment(self, name: str) -> str:
        title = f"{EXPERIMENT}/{name}"
        found = self.client.get_experiment_by_name(title)
        if found is not None:
            return str(found.experiment_id)
        location = None
        if self.artifact_root is not None and not self.tracking_uri.startswith("http"):
            self.artifact_root.mkdir(parents=True, exist_ok=True)
            location = (self.artifact_root.resolve() / name).as_uri()
        return str(self.client.create_experiment(title, artifact_location=location))

    def _drop_half_made(self, experiment: str, key: str) -> None:
        """Delete the runs of this candidate that a kill cut off, and the model files they had logged."""
        runs = self.client.search_runs([experiment], f"tags.`{REGISTRATION}` = '{key}'")
        for run in runs:
            for model in self.client.search_logged_models([experiment], f"source_run_id = '{run.info.run_id}'"):
                self.client.delete_logged_model(model.model_id)
            self.client.set_tag(run.info.run_id, f"{TAG}abandoned", "cut off before its version was made")
            self.client.set_terminated(run.info.run_id, "KILLED")
            self.client.delete_run(run.info.run_id)

    def _log_model(
        self,
        candidate: Path,
        experiment: str,
        run_id: str,
        name: str,
        example: Example,
        tags: dict[str, str],
        serving: dict[str, Any] | None,
    ) -> tuple[str, str]:
        """Store the model folder; return its id and its address."""
        from mlflow.entities import LoggedModelOutput

        client = self.client
        logged = client.create_logged_model(experiment, name=name, source_run_id=run_id, tags=tags)
        with self._scratch() as folder, no_progress_bars():
            work, target = folder / "work", folder / "model"
            work.mkdir()
            metadata = {"segfoundry": dict(tags)}
            model = save_pyfunc(candidate, target, work, example=example, metadata=metadata, serving=serving)
            model.run_id, model.model_id = run_id, logged.model_id
            model.artifact_path, model.model_uuid = logged.artifact_location, logged.model_id
            model.save(str(target / "MLmodel"))
            client.log_model_artifacts(logged.model_id, str(target))
        client.finalize_logged_model(logged.model_id, "READY")
        client.log_outputs(run_id, [LoggedModelOutput(logged.model_id, step=0)])
        return str(logged.model_id), str(logged.artifact_location)

    def _finish(self, version: ModelVersion) -> None:
        """Close the run of a version; again and again without harm."""
        run = self.client.get_run(version.run_id)
        if run.info.status != "FINISHED" or run.data.tags.get(COMPLETE) != "true":
            self.client.set_terminated(version.run_id, "FINISHED")
            self.client.set_tag(version.run_id, COMPLETE, "true")


def _checked_name(name: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
        msg = f"model name: expected letters, digits, dot, dash or underscore, found {name!r}"
        raise UsageError(msg)
    return name


def _model_version(found: Any, aliases: tuple[str, ...]) -> ModelVersion:
    return ModelVersion(found.name, int(found.version), str(found.run_id), dict(found.tags or {}), aliases)


def _ensure_registered_model(client: Any, name: str) -> None:
    from mlflow.exceptions import MlflowException

    try:
        client.create_registered_model(_checked_name(name))
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
