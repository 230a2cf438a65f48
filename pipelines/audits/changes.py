"""What changed between two data versions: cases by dataset and reason."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from infra import repository
from infra.errors import ServiceError
from pipelines.audits.record import Record
from preprocessing.diff import diff_manifests
from preprocessing.schema import MANIFEST_FILE, QUARANTINE_FILE
from preprocessing.withdrawn import REASON as WITHDRAWN

Document = dict[str, Any]
# In this order on a page. The last must never happen.
REASONS = {
    "added": "new cases",
    "released": "cases that were in quarantine and now are not",
    "removed": "cases whose files are gone",
    "withdrawn": "cases taken out by a tombstone",
    "quarantined": "cases that now are in quarantine",
    "relabelled": "cases with other objects or absent concepts",
    "pixels changed": "cases with other pixels",
    "samples added": "kept cases that gave more slices or tiles",
    "samples removed": "kept cases that gave fewer slices or tiles",
    "regrouped": "cases whose patient has another name",
    "pixels not told": "cases from before there were digests, whose pixels may have changed",
    "split moved": "cases in another split than before: an error",
}
_LISTS = {
    "relabelled": "changed_labels",
    "pixels changed": "changed_pixels",
    "pixels not told": "pixels_not_told",
    "regrouped": "regrouped",
    "split moved": "moved",
}
_PARAMS = ("harmonize", "shards", "splits")


def audit(record: Record, old: str, new: str) -> Document:
    """{"old", "new", "ok", "datasets": [{"dataset", "state", "counts", "changes", "recipe", "licence", "samples"}]}.

    `counts` are cases by reason of `REASONS`; `changes` has {"reason", "case_id", "detail"} for each, sorted; "recipe"
    names what of the recipe is another. `ok` is false where a case moved to another split.
    UsageError for an unknown data version.
    """
    for tag in (old, new):
        record.known(tag)
    before, after = record.datasets(old), record.datasets(new)
    datasets = [_dataset(record, name, old, new) for name in sorted({*before, *after})]
    moved = any(one["counts"].get("split moved") for one in datasets)
    return {"old": old, "new": new, "ok": not moved, "datasets": datasets}


def _dataset(record: Record, name: str, old: str, new: str) -> Document:
    before, after = (record.datasets(tag).get(name) for tag in (old, new))
    if before is None or after is None:
        tag, state, reason = (new, "added", "added") if before is None else (old, "removed", "removed")
        changes = [
            {"reason": reason, "case_id": case, "detail": f"the dataset was {state}"}
            for case in _cases(record, name, tag)
        ]
        return _told(name, state, changes, recipe=[], licence=None, samples={})
    if before == after:
        return _told(name, "unchanged", [], recipe=[], licence=None, samples={})
    try:
        changes, samples = _changes(record, name, old, new)
    except ServiceError as error:
        return {**_told(name, "cannot be told", [], recipe=[], licence=None, samples={}), "why": str(error)}
    licences = [record.told(name, tag)["licence"] for tag in (old, new)]
    licence = {"from": licences[0], "to": licences[1]} if licences[0] != licences[1] else None
    return _told(name, "changed", changes, recipe=_recipe(record, name, old, new), licence=licence, samples=samples)


def _told(name: str, state: str, changes: list[Document], **more: Any) -> Document:
    counts = {reason: sum(one["reason"] == reason for one in changes) for reason in REASONS}
    return {
        "dataset": name,
        "state": state,
        "counts": {reason: count for reason, count in counts.items() if count},
        "changes": changes,
        **more,
    }


def _changes(record: Record, name: str, old: str, new: str) -> tuple[list[Document], dict[str, int]]:
    """The changed cases, sorted by reason and case, and `diff_manifests`' counts of samples."""
    paths = [record.file(name, tag, MANIFEST_FILE) for tag in (old, new)]
    found = diff_manifests(paths[0], paths[1], limit=None)
    cases = [set(_cases(record, name, tag)) for tag in (old, new)]
    quarantine = [_quarantine(record, name, tag) for tag in (old, new)]
    changes = [_gone(case, quarantine[1]) for case in cases[0] - cases[1]]
    changes += [_come(case, quarantine[0]) for case in cases[1] - cases[0]]
    for reason, key in _LISTS.items():
        changes += _by_case(reason, found[key])
    for reason, key, known in (("samples added", "added", cases[0]), ("samples removed", "removed", cases[1])):
        changes += [one for one in _by_case(reason, found[key]) if one["case_id"] in known]
    # never in a version: refused before, and now for another reason, or not looked at before
    changes += [
        {"reason": _kind(why), "case_id": case, "detail": why}
        for case, why in quarantine[1].items()
        if case not in cases[0] and quarantine[0].get(case) != why
    ]
    order = list(REASONS)
    changes.sort(key=lambda one: (order.index(one["reason"]), one["case_id"]))
    return changes, dict(found["counts"])


def _gone(case: str, quarantine: dict[str, str]) -> Document:
    why = quarantine.get(case, "")
    return {
        "reason": _kind(why) if why else "removed",
        "case_id": case,
        "detail": why or "its files are no longer there",
    }


def _come(case: str, quarantine: dict[str, str]) -> Document:
    why = quarantine.get(case, "")
    return {"reason": "released" if why else "added", "case_id": case, "detail": f"was: {why}" if why else ""}


def _kind(why: str) -> str:
    return WITHDRAWN if why.partition(":")[0] == WITHDRAWN else "quarantined"


def _by_case(reason: str, samples: Sequence[Any]) -> list[Document]:
    """A change for each case of these samples, which are ids or {"sample_id", "from", "to"}."""
    found: dict[str, list[Any]] = {}
    for sample in samples:
        name = sample["sample_id"] if isinstance(sample, dict) else sample
        found.setdefault(str(name).split("/")[1], []).append(sample)
    changes = []
    for case, ones in found.items():
        ways = sorted({f"{one['from']} → {one['to']}" for one in ones if isinstance(one, dict)})
        detail = ", ".join([*ways, f"{len(ones)} samples"]) if len(ones) > 1 else ", ".join(ways)
        changes.append({"reason": reason, "case_id": case, "detail": detail})
    return changes


def _cases(record: Record, name: str, tag: str) -> list[str]:
    table = pq.read_table(record.file(name, tag, MANIFEST_FILE), columns=["case_id"], read_dictionary=["case_id"])
    names: Iterable[str] = table.column("case_id").cast(pa.string()).unique().to_pylist()
    return sorted(names)


def _quarantine(record: Record, name: str, tag: str) -> dict[str, str]:
    """Case -> "reason: found" of a version's quarantine."""
    if not record.has(name, tag, QUARANTINE_FILE):
        return {}
    rows = pq.read_table(record.file(name, tag, QUARANTINE_FILE)).to_pylist()
    return {row["case_id"]: f"{row['reason']}: {row['found']}" for row in rows}


def _recipe(record: Record, name: str, old: str, new: str) -> list[Document]:
    """{"what", "from", "to"} for each part of a dataset's recipe, and each parameter, that is another."""
    sides = [_flat(_recipe_at(record, name, tag)) for tag in (old, new)]
    return [
        {"what": key, "from": sides[0].get(key), "to": sides[1].get(key)}
        for key in sorted({*sides[0], *sides[1]})
        if sides[0].get(key) != sides[1].get(key)
    ]


def _recipe_at(record: Record, name: str, tag: str) -> Document:
    try:
        value = json.loads(repository.git(record.place.root, "show", f"{tag}:recipes/{name}.json"))
    except (ServiceError, ValueError):
        value = {}
    value.pop("withdrawn", None)  # those are told as cases
    entry = record.lock(tag).get(f"ingest@{name}") or {}
    params = (entry.get("params") or {}).get("params.yaml") or {}
    return {**value, **{section: params[section] for section in _PARAMS if section in params}}


def _flat(value: Any, name: str = "") -> dict[str, str]:
    if isinstance(value, dict):
        parts = [_flat(one, f"{name}.{key}" if name else str(key)) for key, one in value.items()]
        return {key: text for part in parts for key, text in part.items()}
    return {name: json.dumps(value, sort_keys=True, ensure_ascii=False)}
