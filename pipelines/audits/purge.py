"""Deleting old shards of withdrawn cases for good: from DVC's cache and every remote."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Any

from infra.errors import CheckFailed, ServiceError, UsageError
from pipelines.audits import case as cases
from pipelines.audits import keys, local, purged
from pipelines.audits.record import Record
from pipelines.workspace import MODEL_NAME, Workspace
from preprocessing.schema import CARD_FILE
from preprocessing.withdrawn import read_tombstones
from registry.store import RegistryStore

Document = dict[str, Any]
PURGE = "purge"  # the ledger's action


def plan(record: Record, store: RegistryStore, text: str) -> Document:
    """What `carry_out` would delete: {"key", "cases", "objects", "local", "versions", "by_hand", "reason"}.

    `objects` are {"dataset", "data_versions", "file", "md5", "bytes", "in"}: shards that hold the case, and pictures
    of it that an evaluation drew; `in` names the cache and remotes that have them (nothing: purged already).
    `local` is what this machine keeps beside them (`local.kept`). `versions` are the {"data_version", "dataset"} that
    cannot be rebuilt afterwards. `by_hand` is what a person must look at. UsageError for a key that is unknown or was
    not withdrawn; CheckFailed where the newest data version still holds it.
    """
    key = keys.find(record, text)
    found = cases.answer(record, store, key)
    _refuse(record, key, found)
    closed: list[str] = []
    objects = _merged([*_shards(record, found["places"]), *_pictures(record, found["places"], closed)])
    where = record.objects.where(objects)
    sizes = {md5: path.stat().st_size for md5 in objects if (path := record.objects.path(md5)).is_file()}
    rows = [{**one, "md5": md5, "bytes": sizes.get(md5), "in": where[md5]} for md5, one in objects.items()]
    names = sorted({f"{one['dataset']}/{one['case_id']}" for one in found["places"]})
    held = sorted({(one["data_version"], one["dataset"]) for one in found["places"]})
    versions = [{"data_version": tag, "dataset": dataset} for tag, dataset in held]
    return {
        "key": key.shown,
        "cases": names,
        "reason": "; ".join(sorted({one["reason"] for one in found["tombstones"]})),
        "objects": sorted(rows, key=lambda one: (one["dataset"], one["file"], one["md5"])),
        "local": local.kept(record.place, names, versions),
        "versions": versions,
        "by_hand": [*closed, *local.half_written(record.place), *_by_hand(record.place, found["models"])],
        "unread": found["unread"],
    }


def carry_out(record: Record, store: RegistryStore, planned: Document, *, actor: str) -> Document:
    """Delete what `plan` listed; again after a kill goes on. Returns the plan with "removed" (objects by place) and
    "removed_local" (how many of `local`).

    What was purged is written to git and the ledger before the first object goes, so that no version is found
    broken without a reason.
    """
    place = record.place
    known = {(one["data_version"], one["dataset"], *one["cases"]) for one in purged.read(place)}
    new = [
        {
            **one,
            "at": datetime.now(UTC).isoformat(timespec="seconds"),
            "actor": actor,
            "reason": planned["reason"],
            "cases": planned["cases"],
            "objects": [
                {"file": each["file"], "md5": each["md5"]}
                for each in planned["objects"]
                if each["dataset"] == one["dataset"] and one["data_version"] in each["data_versions"]
            ],
        }
        for one in planned["versions"]
        if (one["data_version"], one["dataset"], *planned["cases"]) not in known
    ]
    if new:
        purged.add(place, new)
    # each of the three is looked for by itself: a kill between them leaves the rest to the same command
    place.repo.commit_state(f"purge: {', '.join(planned['cases'])}")
    details = {"cases": planned["cases"], "versions": planned["versions"], "objects": len(planned["objects"])}
    told = [one.details for one in store.ledger.entries(MODEL_NAME) if one.action == PURGE]
    if not any((one.get("cases"), one.get("versions")) == (details["cases"], details["versions"]) for one in told):
        store.ledger.append(
            PURGE, model=MODEL_NAME, version=None, actor=actor, reason=planned["reason"], details=details
        )
    removed: dict[str, int] = {}
    for one in planned["objects"]:
        for where in one["in"]:
            record.objects.remove(one["md5"], where)
            removed[where] = removed.get(where, 0) + 1
    removed_local = local.remove(place, planned["local"], planned["cases"])
    left = {
        md5: there for md5, there in record.objects.where(one["md5"] for one in planned["objects"]).items() if there
    }
    if left:
        md5, there = next(iter(left.items()))
        msg = f"purge: {len(left)} objects are still there, first {md5} in {', '.join(there)}. Run it again"
        raise CheckFailed(msg)
    changed = bool(removed or new or removed_local)
    return {**planned, "removed": removed, "removed_local": removed_local, "changed": changed}


def _refuse(record: Record, key: keys.Key, found: Document) -> None:
    stones = {(stone.dataset, stone.identifier) for stone in read_tombstones(record.place.tombstones)}
    bare = [
        f"{one['dataset']}/{one['case_id']}"
        for one in found["places"]
        if not stones & {(one["dataset"], one["case_id"]), (one["dataset"], one["group_id"])}
    ]
    if bare:
        msg = (
            f"{key.shown}: expected a case that was withdrawn, found no tombstone for {bare[0]}: the next build would "
            f'need its files again. First: segfoundry withdraw --case {bare[0]} --reason "…"'
        )
        raise UsageError(msg)
    if found["live"]:
        datasets = " ".join(sorted({one["dataset"] for one in found["places"]}))
        msg = (
            f"{key.shown}: still in the newest data version {found['newest_data_version']}, which would lose its "
            f"shards. Build without it first: segfoundry data ingest {datasets} --workspace {record.place.root}"
        )
        raise CheckFailed(msg)


Found = tuple[str, Document]  # MD5, and what it is


def _shards(record: Record, places: Sequence[Document]) -> Iterator[Found]:
    live = {md5 for name in record.datasets(record.tags[-1]) for md5 in record.files(name, record.tags[-1]).values()}
    for one in places:
        files = record.files(one["dataset"], one["data_version"])
        for name in (*one["shards"], CARD_FILE):  # the card shows pictures of some cases
            if name in files and files[name] not in live:
                file = f"data/{one['dataset']}/{name}"
                yield files[name], {"dataset": one["dataset"], "file": file, "data_versions": [one["data_version"]]}


def _pictures(record: Record, places: Sequence[Document], closed: list[str]) -> Iterator[Found]:
    """Overlays of the cases that an evaluation of some commit drew; `closed` is told of those that cannot be read."""
    names = {f"{one['dataset']}/{one['case_id']}" for one in places}
    seen: set[str] = set()
    for commit in record.state_commits() if any(one["split"] != "train" for one in places) else ():
        outs = (record.lock(commit).get("evaluate") or {}).get("outs") or []
        folder = str(outs[0]["md5"]) if outs else ""
        if not folder or folder in seen:
            continue
        seen.add(folder)
        try:
            files = record.objects.listing(folder)
            drawn = json.loads(record.objects.fetched(files[local.OVERLAYS]).read_bytes())
        except KeyError:  # it drew no pictures
            continue
        except ServiceError as error:
            closed.append(f"pictures of the evaluation of commit {commit[:12]}, whose list cannot be read: {error}")
            continue
        for one in drawn:
            case = local.case_of(one)
            if case in names and one["file"] in files:
                what = {"dataset": case.split("/")[0], "file": f"evaluation/{one['file']}", "data_versions": []}
                yield files[one["file"]], what


def _merged(found: Sequence[Found]) -> dict[str, Document]:
    """One entry an object, with every data version that has it."""
    objects: dict[str, Document] = {}
    for md5, what in found:
        one = objects.setdefault(md5, {**what, "data_versions": []})
        one["data_versions"] = sorted({*one["data_versions"], *what["data_versions"]})
    return objects


def _by_hand(place: Workspace, models: Sequence[Document]) -> list[str]:
    """What nothing here deletes, and a person must look at."""
    said = [
        f"{one['model']} version {one['version']}: {_report(place, one)} and overlays in MLflow may show the case"
        for one in models
        if one["split"] == "test"
    ]
    said += [
        f"{one['model']} version {one['version']} ({one['use']}) learnt from the case; delete it once another serves"
        for one in models
        if one["split"] != "test"
    ]
    elsewhere = (
        "evaluations written with --out: nobody noted where; remove them",
        "copies of shards at train.data_root and below SEGFOUNDRY_CACHE_DIR of each machine that trained from there",
        "the raw files, exports, backups, and clones of this workspace or of its remotes",
    )
    return [*dict.fromkeys(said), *elsewhere]


def _report(place: Workspace, model: Document) -> str:
    """Where the report of a version is: its pictures are inside the page, so that it goes as a whole."""
    page = place.reports / f"{model['version']}.html"
    here = model["model"] == MODEL_NAME and page.is_file()
    return f"its report ({page.relative_to(place.root).as_posix()} and in MLflow)" if here else "its report"
