"""Audits: what made a model, where a case went, whether the ledger holds. From manifests and registry alone."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from infra.errors import ServiceError
from registry.artifacts import ArtifactGone
from registry.intents import CHAMPION, INTENTS, PREVIOUS, is_open, standing
from registry.lineage import TAG, licence_name, lineage_of_tags
from registry.store import ModelVersion, RegistryStore
from registry.withdrawals import TESTED, WITHDRAWN_TAG

_PLACE = ["sample_id", "case_id", "group_id", "split", "shard"]


@dataclass(frozen=True)
class Recorded:
    """A manifest of some data version: its digest as the version quotes it, and a search for rows of cases or groups.

    `find(identifiers)` gives a table with case_id, group_id, split and shard, e.g. `rows_of_case` on a file.
    """

    digest: str
    find: Callable[[tuple[str, ...]], pa.Table]


Manifests = Mapping[str, Mapping[str, Recorded]]
Measured = Callable[[ModelVersion], Mapping[str, str]]
TEST = "test"
USES = {"train": "trained on", "val": "validated on", TEST: TESTED}


def rows_of_case(manifest: Path | BinaryIO, identifiers: tuple[str, ...]) -> pa.Table:
    """Case, group, split and shard of the rows whose case or group is one of `identifiers`; no other row is kept."""
    wanted = list(identifiers)
    return pq.read_table(manifest, columns=_PLACE, filters=[[("case_id", "in", wanted)], [("group_id", "in", wanted)]])


def audit_model(store: RegistryStore, name: str, version_or_alias: str | int) -> dict[str, Any]:
    """Data, licences, code, parameters, parent, evaluation, gate and ledger rows of a version.

    "gone" has a sentence for each of its files that was deleted or damaged since; what its tags say stands in then.
    """
    version = store.resolve(name, version_or_alias)
    gone: list[str] = []
    lineage = _unless_gone(store.lineage_of, version, gone) or lineage_of_tags(version.tags)
    evaluation = _unless_gone(store.evaluation_of, version, gone) or {}
    gate = _unless_gone(store.gate_of, version, gone)
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
        "parameters": _unless_gone(store.parameters_of, version, gone) or {},
        "seed": lineage.get("seed"),
        "steps": lineage.get("steps"),
        "weights_sha256": lineage["weights_sha256"],
        "parent": {"start_sha256": lineage["start_sha256"]},
        "evaluation": {
            "digest": lineage["evaluation_digest"],
            "split": evaluation.get("split"),
            **evaluation.get("summary", {}),
        },
        "gate": gate.to_dict() if gate else None,
        "ledger": history,
        "manifest_digests": dict(lineage.get("manifest_digests") or {}),
        "start_licences": lineage.get("start_licences") or [],
        "lora": lineage.get("lora"),
        "withdrawn": json.loads(version.tags.get(WITHDRAWN_TAG, "[]")),
        "gone": gone,
    }


def _unless_gone(read: Callable[[str, int], Any], version: ModelVersion, gone: list[str]) -> Any:
    """What is read of a version; None where its file is gone, which is noted."""
    try:
        return read(version.name, version.version)
    except ArtifactGone as error:
        gone.append(str(error))
        return None


def audit_ledger(store: RegistryStore, head: str = "") -> dict[str, Any]:
    """Whether the chain holds, reaches every row that a version vouches for, and agrees with the aliases.

    `head` is the hash of a row noted down elsewhere ("head" of an earlier answer): without it, rows were cut off.
    Asked about are the models that have ledger rows or our lineage; others in the same MLflow are their owners' affair.
    """
    check = store.ledger.verify(head)
    problems = [check.problem] if not check.ok else []
    entries = store.ledger.entries()
    hashes = {entry.position: entry.hash for entry in entries}
    drift = []
    for name in sorted({*store.our_models(), *(entry.model for entry in entries)}):
        for version in store.versions(name):
            position, _, expected = version.tags.get(f"{TAG}ledger", "").partition(":")
            if position and hashes.get(int(position)) != expected:
                problems.append(
                    f"model {name} version {version.version} vouches for ledger row {position} with {expected[:12]}, "
                    f"found {hashes.get(int(position), 'no such row')[:12]}: rows were cut off or rewritten"
                )
        newest = next((one for one in reversed(entries) if one.model == name and one.action in INTENTS), None)
        if newest and "targets" not in newest.details:
            continue  # its row was damaged, which the chain has told already
        if newest and is_open(newest, entries):
            drift.append(f"model {name}: row {newest.position} was not carried out: run segfoundry model reconcile")
            continue
        found = store.aliases(name)
        said = standing(store, name, newest, found)
        drift += [
            f"model {name}: the ledger says {alias} {said.get(alias)}, MLflow says {found.get(alias)}: set outside "
            "segfoundry; run segfoundry model reconcile with --restore or --adopt"
            for alias in (CHAMPION, PREVIOUS)
            if said.get(alias) != found.get(alias)
        ]
    return {
        "ok": not problems and not drift,
        "entries": check.entries,
        "head": check.head,
        "broken_at": check.position,
        "problems": problems,
        "drift": drift,
    }


def audit_case(
    key: str, manifests: Manifests, models: Sequence[ModelVersion], measured: Measured | None = None
) -> dict[str, Any]:
    """Where a case is: data versions, datasets, splits, shards, and the models that saw it.

    `key` is a case or group identifier, alone or as "dataset/identifier". `manifests` holds the manifest of
    every dataset by data version; `models` is `store.versions(name)`. A model was trained on the case where
    it names the manifest and the case is in its train split; `measured` adds datasets that it was only tested on.
    """
    dataset_wanted, _, identifier = key.rpartition("/")
    wanted = {dataset: (identifier,) if dataset_wanted == dataset else (key,) for dataset in _all_datasets(manifests)}
    places, unread = places_of(manifests, wanted)
    return {
        "key": key,
        "found": bool(places),
        "places": places,
        "models": models_that_saw(places, models, measured),
        "unread": unread,
    }


def places_of(
    manifests: Manifests, wanted: Mapping[str, tuple[str, ...]]
) -> tuple[list[dict[str, Any]], list[dict[str, str]]]:
    """Where the cases or groups `wanted` (by dataset) are, and the dataset versions that cannot be read, with why."""
    places: list[dict[str, Any]] = []
    unread: list[dict[str, str]] = []
    for data_version, tables in manifests.items():
        for dataset, manifest in tables.items():
            if not wanted.get(dataset):
                continue
            try:
                places += _places(data_version, dataset, manifest, wanted[dataset])
            except ServiceError as error:
                unread.append({"data_version": data_version, "dataset": dataset, "why": str(error)})
    return places, unread


def models_that_saw(
    places: Sequence[dict[str, Any]], models: Sequence[ModelVersion], measured: Measured | None = None
) -> list[dict[str, Any]]:
    """Models whose data hold one of `places`, newest first, and those that started from the weights of such a one.

    `measured(version)` gives dataset -> manifest digest of what a version was evaluated on.
    """
    uses = sorted({(place["dataset"], place["manifest_digest"], place["split"]) for place in places})
    seen = []
    for model in models:
        tested = measured(model) if measured and any(split == TEST for _, _, split in uses) else {}
        for dataset, digest, split in uses:
            named = model.tags.get(f"{TAG}manifest.{dataset}") == digest
            if named or (split == TEST and tested.get(dataset) == digest):
                seen.append(_seen(model, dataset, split, USES[split]))
    return [*seen, *_heirs(seen, models)]


def measured_on(store: RegistryStore, version: ModelVersion) -> Mapping[str, str]:
    """Dataset -> manifest digest of what a version was evaluated on, external test sets too; empty where unknown."""
    try:
        figures = store.evaluation_of(version.name, version.version)
    except ArtifactGone:  # its tags tell what it was trained on
        return {}
    found: Mapping[str, str] = figures.get("manifest_digests") or {}
    return found


def _heirs(seen: Sequence[dict[str, Any]], models: Sequence[ModelVersion]) -> list[dict[str, Any]]:
    """Versions that started from the weights of one that had learnt from the case, and so on down the line."""
    learnt = {(one["model"], one["version"]) for one in seen if one["split"] != TEST}
    by_weights = {model.weights_sha256: model for model in models if model.weights_sha256}
    found: list[dict[str, Any]] = []
    for model in sorted(models, key=lambda one: one.version):  # a parent is older
        parent = by_weights.get(model.tags.get(f"{TAG}start_sha256", ""))
        if parent and parent is not model and (parent.name, parent.version) in learnt:
            if (model.name, model.version) not in learnt:
                found.append(_seen(model, "", "", f"started from version {parent.version}"))
            learnt.add((model.name, model.version))
    return found


def _seen(model: ModelVersion, dataset: str, split: str, use: str) -> dict[str, Any]:
    return {
        "model": model.name,
        "version": model.version,
        "aliases": list(model.aliases),
        "dataset": dataset,
        "split": split,
        "use": use,
    }


def _all_datasets(manifests: Manifests) -> list[str]:
    return sorted({dataset for tables in manifests.values() for dataset in tables})


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
