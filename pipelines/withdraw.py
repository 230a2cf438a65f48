"""Withdraw a case: keep it out of every later build, and say where it has been."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from infra.errors import CheckFailed
from infra.processes import RunLock
from infra.storage import remove_leftovers
from pipelines import history, plan
from pipelines.workspace import MODEL_NAME, Workspace
from preprocessing.withdrawn import Tombstone, add_tombstones
from registry.audit import audit_case
from registry.store import RegistryStore
from registry.withdrawals import mark_withdrawn

Document = dict[str, Any]


def withdraw(place: Workspace, store: RegistryStore, key: str, *, reason: str, actor: str) -> Document:
    """Set tombstones for the cases that `key` names and mark the models that saw them.

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
        stones = [
            Tombstone(dataset, name, reason, actor, datetime.now(UTC).isoformat(timespec="seconds"))
            for dataset, name in sorted({(one["dataset"], _as_named(one, key, identifier)) for one in found["places"]})
        ]
        added = add_tombstones(place.tombstones, stones)
        datasets = sorted({stone.dataset for stone in stones})
        for dataset in datasets:
            plan.refresh_tombstones(place, dataset)
        models = mark_withdrawn(store, MODEL_NAME, found["models"], key, reason=reason, actor=actor)
        place.repo.commit_state(f"withdraw: {', '.join(f'{one.dataset}/{one.identifier}' for one in stones)}")
    return {
        "key": key,
        "changed": bool(added),
        "datasets": datasets,
        "cases": sorted({f"{one['dataset']}/{one['case_id']}" for one in found["places"]}),
        "models": models,
        "purge": purge_list(found["places"]),
        "next": f"segfoundry flow run --workspace {place.root}",
    }


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
