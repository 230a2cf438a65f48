"""Withdraw a case: keep it out of every later build, build without it, and say where it has been."""

from __future__ import annotations

from collections.abc import Collection
from datetime import UTC, datetime
from typing import Any

import pyarrow.parquet as pq

from infra.dvc import INGEST_PREFIX
from infra.errors import ServiceError, UsageError
from infra.processes import RunLock
from infra.storage import remove_leftovers
from pipelines import manual, plan, requests
from pipelines.audits import case as cases
from pipelines.audits import keys, search
from pipelines.audits.record import Record, open_record
from pipelines.pages import ingested
from pipelines.workspace import Workspace
from preprocessing import twins
from preprocessing.schema import DATASET_FILE, HASHES_FILE, QUARANTINE_FILE
from preprocessing.withdrawn import Tombstone, add_tombstones
from registry.store import RegistryStore
from registry.withdrawals import mark_withdrawn

Document = dict[str, Any]


def withdraw(
    place: Workspace, store: RegistryStore, key: str, *, reason: str, actor: str, build: bool = True
) -> Document:
    """Set tombstones for the cases that `key` names and for their known copies, mark the models, ask for a retraining.

    `key` is what `pipelines.audits.keys.find` understands, or a case that so far only was in quarantine. With
    `build`, the ingest stages of its datasets run, and "search" says whether the live shards hold anything of it.
    Saying it again changes nothing. UsageError with near names for an unknown key.
    """
    with RunLock(place.state, "withdraw"), open_record(place) as record:
        remove_leftovers(place.root, recursive=False)
        document = _tombstones(record, store, key, reason=reason, actor=actor)
    targets = [f"{INGEST_PREFIX}{name}" for name in document["datasets"] if name in ingested(place)]
    document["built"] = manual.make(place, targets) if build and targets else []
    with open_record(place) as record:
        document["data_version"] = record.tags[-1]
        document["search"] = search.audit(record) if build else None
    return document


def _tombstones(record: Record, store: RegistryStore, text: str, *, reason: str, actor: str) -> Document:
    place = record.place
    found, names = _named(record, store, text)
    now = datetime.now(UTC).isoformat(timespec="seconds")
    stones: list[Tombstone] = []
    places = list(found["places"])
    for dataset, identifiers in names.items():
        own = [one for one in found["places"] if one["dataset"] == dataset]
        shown = _what_it_shows(record, dataset, own)
        for name in identifiers:
            stones.append(Tombstone(dataset, name, reason, actor, now, pixels_sha256=tuple(shown["pixels"])))
        stones += [Tombstone(dataset, twin, reason, actor, now, twin_of=identifiers[0]) for twin in shown["twins"]]
        elsewhere = _elsewhere(place, dataset, {one["case_id"] for one in own})
        stones += [
            Tombstone(other, group, reason, actor, now, twin_of=f"{dataset}/{identifiers[0]}")
            for other, groups in elsewhere.items()
            for group in groups
        ]
        # models may have seen those, too
        for other, groups in {**elsewhere, dataset: shown["kept_twins"]}.items():
            seen = keys.Key("", {other: tuple(groups)})
            places += cases.answer(record, store, seen)["places"] if groups else []
    added = add_tombstones(place.tombstones, stones)
    datasets = sorted({stone.dataset for stone in stones})
    for dataset in datasets:
        plan.refresh_tombstones(place, dataset)
    models = cases.seen_by(store, places)
    marked = [
        {"name": name, **one}
        for name in sorted({one["model"] for one in models})
        for one in mark_withdrawn(
            store, name, [one for one in models if one["model"] == name], found["key"], reason=reason, actor=actor
        )
    ]
    held = sorted({f"{one['dataset']}/{one['case_id']}" for one in places})
    asked = _ask(record, marked, found["key"], held, reason=reason, actor=actor)
    place.repo.commit_state(f"withdraw: {', '.join(f'{one.dataset}/{one.identifier}' for one in stones)}")
    return {
        "key": found["key"],
        "changed": bool(added),
        "datasets": datasets,
        "cases": sorted({f"{one['dataset']}/{one['case_id']}" for one in found["places"]}) or [found["key"]],
        "twins": [f"{one.dataset}/{one.identifier}" for one in stones if one.twin_of],
        "models": marked,
        "purge": purge_list(places),
        "retrain": asked,
        "next": f"segfoundry flow run --workspace {place.root}",
    }


def _named(record: Record, store: RegistryStore, text: str) -> tuple[Document, dict[str, list[str]]]:
    """Where `text` is, and dataset -> identifiers for its tombstones: as asked for, or cases where it was a name."""
    try:
        key = keys.find(record, text)
    except UsageError:
        aside = _in_quarantine(record, text)
        if not aside:
            raise
        empty: Document = {"key": f"{aside[0]}/{aside[1]}", "places": [], "models": []}
        return empty, {aside[0]: [aside[1]]}
    found = cases.answer(record, store, key)
    names: dict[str, list[str]] = {}
    for one in found["places"]:
        asked = set(key.of(one["dataset"]))
        name = next(name for name in (one["case_id"], one["group_id"]) if name in asked)
        known = names.setdefault(one["dataset"], [])
        if name not in known:
            known.append(name)
    if not key.by_name and not key.shown.partition("/")[2]:  # a bare id: say of what
        found["key"] = ", ".join(f"{dataset}/{name}" for dataset, ones in names.items() for name in ones)
    return found, {dataset: sorted(ones) for dataset, ones in sorted(names.items())}


def _in_quarantine(record: Record, text: str) -> tuple[str, str] | None:
    """Dataset and case of `text` where a version only ever refused it: it must stay out when it could be read."""
    dataset, _, case = text.rpartition("/")
    for tag in reversed(record.tags):
        for name in record.datasets(tag):
            if dataset in ("", name) and record.has(name, tag, QUARANTINE_FILE):
                table = pq.read_table(record.file(name, tag, QUARANTINE_FILE), columns=["case_id"])
                if case in table.column("case_id").to_pylist():
                    return name, case
    return None


def _what_it_shows(record: Record, dataset: str, places: list[Document]) -> Document:
    """Of the cases at `places` of one dataset: "pixels" (SHA-256), "twins", and "kept_twins" of these.

    Cases in quarantine as their duplicates are twins in every data version that holds the cases; groups that are
    kept beside them are looked for in the version that lies in the workspace.
    """
    pixels: set[str] = set()
    aside: set[str] = set()
    own = {one["case_id"] for one in places}
    asked: set[str] = set()
    for tag in sorted({one["data_version"] for one in places}):
        folder = record.datasets(tag)[dataset]
        if folder in asked:
            continue
        asked.add(folder)
        if (table := _table(record, dataset, tag, HASHES_FILE)) is not None:
            pixels |= set(twins.pixels_of(table, own))
        if (table := _table(record, dataset, tag, QUARANTINE_FILE)) is not None:
            aside |= set(twins.set_aside_for(table, own))
    here = record.place.data / dataset
    kept = twins.kept_beside(here, own) if own and (here / DATASET_FILE).is_file() else []
    return {"pixels": sorted(pixels), "twins": sorted({*aside, *kept}), "kept_twins": kept}


def _table(record: Record, dataset: str, tag: str, file: str) -> Any:
    try:
        return pq.read_table(record.file(dataset, tag, file))
    except ServiceError:  # built without it, or purged: the other versions tell
        return None


def _elsewhere(place: Workspace, dataset: str, own: Collection[str]) -> dict[str, list[str]]:
    """Other dataset -> groups whose pictures or volumes show what the cases `own` show, in the workspace's versions."""
    folder = place.data / dataset
    if not own or not (folder / DATASET_FILE).is_file():
        return {}
    others = {name: twins.kept_in(folder, own, place.data / name) for name in ingested(place) if name != dataset}
    return {name: groups for name, groups in others.items() if groups}


def _ask(
    record: Record, marked: list[Document], key: str, held: list[str], *, reason: str, actor: str
) -> Document | None:
    """The request for a retraining, new or from before; None where no model has seen the case."""
    if not marked:
        return None
    place, newest = record.place, record.tags[-1]
    return requests.ask(
        place,
        cause=requests.WITHDRAWN,
        key=key,
        reason=reason,
        actor=actor,
        data_version=newest,
        cases=held,
        models=marked,
    )


def purge_list(places: list[Document]) -> list[Document]:
    """What still holds the case: the shards of each data version that was made before."""
    return [
        {
            "data_version": one["data_version"],
            "dataset": one["dataset"],
            "shards": [f"data/{one['dataset']}/{name}" for name in one["shards"]],
            "split": one["split"],
        }
        for one in places
    ]
