"""Versions without weights: run, evaluation, lineage and tags as `register` leaves them, in a tenth of its time.

For tests of what happens to versions once they are there; what `register` itself does is in test_store.py.
"""

from __future__ import annotations

import hashlib
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from infra.storage import digest_of, write_json
from registry.lineage import version_tags
from registry.store import LINEAGE_FILE, RegistryStore, _ensure_registered_model
from tests.registry import samples

GROUPS = 8


def lineage_of(figures: dict[str, Any], **changes: Any) -> dict[str, Any]:
    return {
        "data_version": "data-v1",
        "data_commit": "c0ffee" * 6,
        "code_commit": "0badf00d" * 5,
        "manifest_digests": dict(figures["manifest_digests"]),
        "datasets": samples.datasets(),
        "strictest_licence": "research and education only",
        "commercial_use": "no",
        "redistribution": "yes",
        "weights_sha256": figures["weights_sha256"],
        "start_sha256": figures["start_sha256"],
        "evaluation_digest": "e" * 64,
        **changes,
    }


def rows_of(figures: dict[str, Any], concepts: dict[str, float]) -> pa.Table:
    """`evaluation.parquet`: eight patients for each concept, around its Dice moved by `concepts`."""
    rows = [
        {"sample_id": f"{dataset}/{number}", "dataset": dataset, "modality": entry["modality"],
         "case_id": f"{dataset}-c{number}", "group_id": f"{dataset}-g{number}", "concept": concept,
         "prompt": "text", "model": "after", "present": True,
         "dice": one["dice_text_after"] + concepts.get(concept, 0.0) + 0.01 * (number % 3 - 1)}
        for dataset, entry in figures["datasets"].items()
        for concept, one in entry["concepts"].items()
        if one["dice_text_after"] is not None
        for number in range(GROUPS)
    ]  # fmt: skip
    return pa.Table.from_pylist(rows)


@dataclass
class Light:
    """A candidate by its name; `change` moves datasets, `concepts` move concepts in the rows alone.

    It was not measured on the datasets `without`; `renamed` gives concepts other names.
    """

    name: str
    change: dict[str, float] = field(default_factory=dict)
    concepts: dict[str, float] = field(default_factory=dict)
    lineage_changes: dict[str, Any] = field(default_factory=dict)
    without: tuple[str, ...] = ()
    renamed: dict[str, str] = field(default_factory=dict)
    numbers: dict[str, int] = field(default_factory=dict)

    @property
    def figures(self) -> dict[str, Any]:
        weights = hashlib.sha256(self.name.encode()).hexdigest()
        found = samples.evaluation(weights, "b" * 64, change=self.change)
        for name in self.without:
            del found["datasets"][name], found["manifest_digests"][name]
        for dataset, entry in found["datasets"].items():
            if self.renamed.keys() & entry["concepts"].keys():  # the names are in the manifest
                found["manifest_digests"][dataset] = digest_of([dataset, self.renamed])
            entry["concepts"] = {self.renamed.get(name, name): one for name, one in entry["concepts"].items()}
        return {**found, "presence": {"false_alarm_rate": 0.1}}

    @property
    def lineage(self) -> dict[str, Any]:
        return lineage_of(self.figures, **self.lineage_changes)

    def version(self, store: RegistryStore, model: str) -> int:
        """Its version in `store`, made by the first call."""
        if model not in self.numbers:
            self.numbers[model] = _make(store, model, self)
        return self.numbers[model]


def _make(store: RegistryStore, model: str, made: Light) -> int:
    figures = made.figures
    experiment = store._experiment("light")
    client = store.client
    run = client.create_run(experiment, run_name=made.name)
    with tempfile.TemporaryDirectory() as folder:
        here = Path(folder)
        write_json(here / LINEAGE_FILE, made.lineage)
        write_json(here / "evaluation" / "evaluation.json", figures)
        pq.write_table(rows_of(figures, made.concepts), here / "evaluation" / "evaluation.parquet")
        client.log_artifacts(run.info.run_id, folder)
    client.log_param(run.info.run_id, "train.recipe", "tiny")
    _ensure_registered_model(client, model)
    source = f"{run.info.artifact_uri}/evaluation"
    tags = version_tags(made.lineage, figures)
    return int(client.create_model_version(model, source, run_id=run.info.run_id, tags=tags).version)
