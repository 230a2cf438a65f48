"""Deleting old shards of withdrawn cases for good: from DVC's cache and every remote."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from infra.errors import CheckFailed, ServiceError, UsageError
from infra.storage import read_json
from pipelines.audits import case as cases
from pipelines.audits import keys, purged
from pipelines.audits.record import Record
from pipelines.evaluations import EVALUATIONS, REVISIONS
from pipelines.workspace import MODEL_NAME, Workspace
from preprocessing.schema import CARD_FILE
from preprocessing.withdrawn import read_tombstones
from registry.store import RegistryStore

Document = dict[str, Any]
PURGE = "purge"  # the ledger's action
_OVERLAYS = "overlays.json"


def plan(record: Record, store: RegistryStore, text: str) -> Document:
    """What `carry_out` would delete: {"key", "cases", "objects", "versions", "by_hand", "reason"}.

    `objects` are {"dataset", "data_versions", "file", "md5", "bytes", "in"}: shards that hold the case, and pictures
    of it that an evaluation drew; `in` names the cache and remotes that have them (nothing: purged already).
    `versions` are the {"data_version", "dataset"} that cannot be rebuilt afterwards. `by_hand` is what lies outside
    of DVC. UsageError for a key that is unknown or was not withdrawn; CheckFailed where the newest data version
    still holds it.
    """
    key = keys.find(record, text)
    found = cases.answer(record, store, key)
    _refuse(record, key, found)
    closed: list[str] = []
    objects = _merged([*_shards(record, found["places"]), *_pictures(record, found["places"], closed)])
    where = record.objects.where(objects)
    sizes = {md5: path.stat().st_size for md5 in objects if (path := record.objects.path(md5)).is_file()}
    rows = [{**one, "md5": md5, "bytes": sizes.get(md5), "in": where[md5]} for md5, one in objects.items()]
    names = {(one["dataset"], one["case_id"]) for one in found["places"]}
    return {
        "key": key.shown,
        "cases": sorted(f"{dataset}/{case}" for dataset, case in names),
        "reason": "; ".join(sorted({one["reason"] for one in found["tombstones"]})),
        "objects": sorted(rows, key=lambda one: (one["dataset"], one["file"], one["md5"])),
        "versions": [
            {"data_version": tag, "dataset": dataset}
            for tag, dataset in sorted({(one["data_version"], one["dataset"]) for one in found["places"]})
        ],
        "by_hand": [*closed, *_by_hand(found["models"])],
        "unread": found["unread"],
    }


def carry_out(record: Record, store: RegistryStore, planned: Document, *, actor: str) -> Document:
    """Delete what `plan` listed; again after a kill goes on. Returns the plan with "removed" (objects by place) and
    "prepared" (folders of decoded shards on this machine).

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
    local = _remove_prepared(record, planned["cases"]) + _remove_copies(record.place, planned)
    left = {
        md5: there for md5, there in record.objects.where(one["md5"] for one in planned["objects"]).items() if there
    }
    if left:
        md5, there = next(iter(left.items()))
        msg = f"purge: {len(left)} objects are still there, first {md5} in {', '.join(there)}. Run it again"
        raise CheckFailed(msg)
    return {**planned, "removed": removed, "prepared": local, "changed": bool(removed or new or local)}


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


def _remove_prepared(record: Record, names: Sequence[str]) -> int:
    """Remove the arrays that training decoded from shards of these cases and keeps on this machine; return how many."""
    count = 0
    for index in (record.place.state / "train" / "prepared").glob("*/index.json"):
        text = index.read_text(encoding="utf-8")
        if any(f'"{name}/' in text or f'"{name}"' in text for name in names):
            shutil.rmtree(index.parent)
            count += 1
    return count


def _remove_copies(place: Workspace, planned: Document) -> int:
    """Remove what `segfoundry evaluate --data` keeps on this machine: copies of the versions, pictures of the cases."""
    for one in _drawn(place.evaluation):
        if _case_of(one) in planned["cases"]:  # a hard link to the object that is gone from the cache
            (place.evaluation / one["file"]).unlink(missing_ok=True)
    gone = [place.state / REVISIONS / one["data_version"] / one["dataset"] for one in planned["versions"]]
    for listed in (place.state / EVALUATIONS).glob("*/overlays.json"):
        if {_case_of(one) for one in _drawn(listed.parent)} & set(planned["cases"]):
            gone.append(listed.parent)
    count = 0
    for folder in gone:
        if folder.is_symlink():  # to the live version, which has been built without the case
            folder.unlink()
        elif folder.is_dir():
            shutil.rmtree(folder)
            count += 1
    return count


def _drawn(evaluation: Path) -> list[Document]:
    """The pictures that an evaluation folder holds."""
    file = evaluation / _OVERLAYS
    return list(read_json(file)) if file.is_file() else []


def _case_of(overlay: Document) -> str:
    return "/".join(str(overlay["sample_id"]).split("/")[:2])


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
            drawn = json.loads(record.objects.fetched(files[_OVERLAYS]).read_bytes())
        except KeyError:  # it drew no pictures
            continue
        except ServiceError as error:
            closed.append(f"pictures of the evaluation of commit {commit[:12]}, whose list cannot be read: {error}")
            continue
        for one in drawn:
            case = _case_of(one)
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


def _by_hand(models: Sequence[Document]) -> list[str]:
    """What DVC does not keep, and a person must look at."""
    said = [
        f"{one['model']} version {one['version']}: its report and overlays in MLflow may show the case"
        for one in models
        if one["split"] == "test"
    ]
    said += [
        f"{one['model']} version {one['version']} ({one['use']}) learnt from the case; delete it once another serves"
        for one in models
        if one["split"] != "test"
    ]
    elsewhere = "the raw files, reports, exports, backups, and clones of this workspace or of its remotes"
    return [*dict.fromkeys(said), elsewhere]
