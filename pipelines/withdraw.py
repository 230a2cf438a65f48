"""Withdraw a case: keep it out of every later build, and say where it has been."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from infra.errors import CheckFailed
from infra.processes import RunLock
from infra.storage import remove_leftovers
from pipelines import history, plan
from pipelines.workspace import MODEL_NAME, Workspace
from preprocessing import twins
from preprocessing.schema import DATASET_FILE, HASHES_FILE, QUARANTINE_FILE
from preprocessing.withdrawn import Tombstone, add_tombstones
from registry.audit import audit_case
from registry.store import RegistryStore
from registry.withdrawals import mark_withdrawn

Document = dict[str, Any]


def withdraw(place: Workspace, store: RegistryStore, key: str, *, reason: str, actor: str) -> Document:
    """Set tombstones for the cases that `key` names and for their known copies, and mark the models that saw them.

    `key` is a case or group identifier as manifests name it, alone or as "dataset/identifier". Nothing is built
    here: the ingest stages of the datasets are stale afterwards. Saying it again changes nothing.
    Raises CheckFailed where no data version of the workspace holds the case.
    """
    with RunLock(place.state, "withdraw"):
        remove_leftovers(place.root, recursive=False)
        found = audit_case(key, history.manifests(place), store.versions(MODEL_NAME))
        if not found["found"]:
            msg = f"{key}: in no data version of {place.root}, so there is nothing to withdraw"
            raise CheckFailed(msg)
        identifier = key.rpartition("/")[2]
        now = datetime.now(UTC).isoformat(timespec="seconds")
        stones: list[Tombstone] = []
        models, places = list(found["models"]), list(found["places"])
        for dataset, name in sorted({(one["dataset"], _as_named(one, key, identifier)) for one in found["places"]}):
            shown = _what_it_shows(place, dataset, [one for one in found["places"] if one["dataset"] == dataset])
            stones.append(Tombstone(dataset, name, reason, actor, now, pixels_sha256=tuple(shown["pixels"])))
            stones += [Tombstone(dataset, twin, reason, actor, now, twin_of=name) for twin in shown["twins"]]
            for twin in shown["kept_twins"]:  # models may have seen these
                seen = audit_case(f"{dataset}/{twin}", history.manifests(place), store.versions(MODEL_NAME))
                models += seen["models"]
                places += seen["places"]
        added = add_tombstones(place.tombstones, stones)
        datasets = sorted({stone.dataset for stone in stones})
        for dataset in datasets:
            plan.refresh_tombstones(place, dataset)
        marked = mark_withdrawn(store, MODEL_NAME, models, key, reason=reason, actor=actor)
        place.repo.commit_state(f"withdraw: {', '.join(f'{one.dataset}/{one.identifier}' for one in stones)}")
    return {
        "key": key,
        "changed": bool(added),
        "datasets": datasets,
        "cases": sorted({f"{one['dataset']}/{one['case_id']}" for one in found["places"]}),
        "twins": [f"{one.dataset}/{one.identifier}" for one in stones if one.twin_of],
        "models": marked,
        "purge": purge_list(places),
        "next": f"segfoundry flow run --workspace {place.root}",
    }


def _what_it_shows(place: Workspace, dataset: str, places: list[Document]) -> Document:
    """Of the cases at `places` of one dataset: "pixels" (SHA-256), "twins", and "kept_twins" of these.

    Cases in quarantine as their duplicates are twins in every data version that holds the cases; groups that are
    kept beside them are looked for in the version that lies in the workspace.
    """
    pixels: set[str] = set()
    aside: set[str] = set()
    cases = {one["case_id"] for one in places}
    for tag in history.distinct_versions(place, dataset, sorted({one["data_version"] for one in places})):
        if (table := history.table_at(place, dataset, tag, HASHES_FILE)) is not None:
            pixels |= set(twins.pixels_of(table, cases))
        if (table := history.table_at(place, dataset, tag, QUARANTINE_FILE)) is not None:
            aside |= set(twins.set_aside_for(table, cases))
    folder = place.data / dataset
    kept = twins.kept_beside(folder, cases) if (folder / DATASET_FILE).is_file() else []
    return {"pixels": sorted(pixels), "twins": sorted({*aside, *kept}), "kept_twins": kept}


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


def _as_named(found: Document, key: str, identifier: str) -> str:
    """The identifier that a place was found by: the case's own or its group's."""
    names = (found["case_id"], found["group_id"])
    return next(name for name in (identifier, key) if name in names)
