"""Audits: what made a model, where a case went, whether the ledger holds. From manifests and registry alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from registry.ledger import Entry
from registry.lineage import TAG, licence_name
from registry.promote import DONE, PROMOTE, ROLLBACK
from registry.store import ModelVersion, RegistryStore

_PLACE = ["case_id", "group_id", "split", "shard"]


@dataclass(frozen=True)
class Recorded:
    """A manifest of some data version: its digest as the version quotes it, and a search for rows of cases or groups.

    `find(identifiers)` gives a table with case_id, group_id, split and shard, e.g. `rows_of_case` on a file.
    """

    digest: str
    find: Callable[[tuple[str, ...]], pa.Table]


Manifests = Mapping[str, Mapping[str, Recorded]]


def rows_of_case(manifest: Path | BinaryIO, identifiers: tuple[str, ...]) -> pa.Table:
    """Case, group, split and shard of the rows whose case or group is one of `identifiers`; no other row is kept."""
    wanted = list(identifiers)
    return pq.read_table(manifest, columns=_PLACE, filters=[[("case_id", "in", wanted)], [("group_id", "in", wanted)]])


def audit_model(store: RegistryStore, name: str, version_or_alias: str | int) -> dict[str, Any]:
    """Data, licences, code, parameters, parent, evaluation and gate of a version, and how to build it again."""
    version = store.resolve(name, version_or_alias)
    lineage = store.lineage_of(name, version.version)
    evaluation = store.evaluation_of(name, version.version)
    gate = store.gate_of(name, version.version)
    history = [asdict(entry) for entry in store.ledger.entries(name) if entry.version == version.version]
    return {
        "model": name,
        "version": version.version,
        "aliases": list(version.aliases),
        "run_id": version.run_id,
        "data_version": lineage["data_version"],
        "data_commit": lineage["data_commit"],
        "code_commit": lineage["code_commit"],
        "datasets": [
            {
                "dataset": one["dataset"],
                "modality": one.get("modality"),
                "manifest_digest": one["manifest_digest"],
                "source_kind": one.get("source_kind"),
                "licence": licence_name(one.get("licence")),
                "cases": (one.get("counts") or {}).get("cases_kept"),
                "samples": (one.get("counts") or {}).get("samples"),
            }
            for one in lineage["datasets"]
        ],
        "strictest_licence": lineage["strictest_licence"],
        "commercial_use": lineage.get("commercial_use", "unknown"),
        "redistribution": lineage.get("redistribution", "unknown"),
        "parameters": store.parameters_of(version),
        "seed": lineage.get("seed"),
        "steps": lineage.get("steps"),
        "weights_sha256": lineage["weights_sha256"],
        "parent": {"start_sha256": lineage["start_sha256"]},
        "evaluation": {"digest": lineage["evaluation_digest"], "split": evaluation["split"], **evaluation["summary"]},
        "gate": gate.to_dict() if gate else None,
        "ledger": history,
        "rebuild": rebuild_command(lineage),
    }


def rebuild_command(lineage: dict[str, Any]) -> str:
    """The commands, run in the workspace, that build the model again from its data version."""
    return (
        f"git checkout {lineage['data_version']} && dvc checkout && dvc repro train evaluate"
        f"  # with the code at {lineage['code_commit']}"
    )


def audit_ledger(store: RegistryStore, head: str = "") -> dict[str, Any]:
    """Whether the chain holds, reaches every row that a version vouches for, and agrees with the aliases.

    `head` is the hash of a row noted down elsewhere ("head" of an earlier answer): without it, rows were cut off.
    """
    check = store.ledger.verify(head)
    problems = [check.problem] if not check.ok else []
    entries = store.ledger.entries()
    hashes = {entry.position: entry.hash for entry in entries}
    names = [one.name for one in store.client.search_registered_models()]
    drift = []
    for name in names:
        for version in store.versions(name):
            position, _, expected = version.tags.get(f"{TAG}ledger", "").partition(":")
            if position and hashes.get(int(position)) != expected:
                problems.append(
                    f"model {name} version {version.version} vouches for ledger row {position} with {expected[:12]}, "
                    f"found {hashes.get(int(position), 'no such row')[:12]}: rows were cut off or rewritten"
                )
        newest = next(
            (one for one in reversed(entries) if one.model == name and one.action in (PROMOTE, ROLLBACK)), None
        )
        said = newest.details["targets"]["champion"] if newest else None
        found = store.aliases(name).get("champion")
        if newest and not _is_done(newest, entries):
            drift.append(f"model {name}: row {newest.position} was not carried out: run segfoundry model reconcile")
        elif said != found:
            drift.append(f"model {name}: the ledger says champion {said}, MLflow says {found}: set outside segfoundry")
    return {
        "ok": not problems and not drift,
        "entries": check.entries,
        "head": check.head,
        "broken_at": check.position,
        "problems": problems,
        "drift": drift,
    }


def _is_done(intent: Entry, entries: list[Entry]) -> bool:
    return any(one.action == DONE and one.details.get("intent") == intent.position for one in entries)


def audit_case(key: str, manifests: Manifests, models: list[ModelVersion]) -> dict[str, Any]:
    """Where a case is: data versions, datasets, splits, shards, and the models that saw it.

    `key` is a case or group identifier, alone or as "dataset/identifier". `manifests` holds the manifest of
    every dataset by data version; `models` is `store.versions(name)`. A model was trained on the case where
    it names the manifest and the case is in its train split.
    """
    dataset_wanted, _, identifier = key.rpartition("/")
    places: list[dict[str, Any]] = []
    for data_version, tables in manifests.items():
        for dataset, manifest in tables.items():
            names = (identifier,) if dataset_wanted == dataset else (key,)
            places += _places(data_version, dataset, manifest, names)
    uses = sorted({(place["dataset"], place["manifest_digest"], place["split"]) for place in places})
    seen = []
    for model in models:
        for dataset, digest, split in uses:
            if model.tags.get(f"{TAG}manifest.{dataset}") == digest:
                use = {"train": "trained on", "val": "validated on", "test": "tested on"}[split]
                seen.append({"model": model.name, "version": model.version, "aliases": list(model.aliases),
                             "dataset": dataset, "split": split, "use": use})  # fmt: skip
    return {"key": key, "found": bool(places), "places": places, "models": seen}


def _places(data_version: str, dataset: str, manifest: Recorded, names: tuple[str, ...]) -> list[dict[str, Any]]:
    cases: dict[tuple[str, str, str], list[dict[str, Any]]] = {}
    for row in manifest.find(names).to_pylist():
        cases.setdefault((row["case_id"], row["group_id"], row["split"]), []).append(row)
    return [
        {
            "data_version": data_version,
            "dataset": dataset,
            "manifest_digest": manifest.digest,
            "case_id": case,
            "group_id": group,
            "split": split,
            "samples": len(found),
            "shards": sorted({row["shard"] for row in found}),
        }
        for (case, group, split), found in sorted(cases.items())
    ]
