"""`retrain_requests.jsonl`: who asked for a retraining and why, in the workspace's git. `docs/audit.md` has the format.

A line is only ever appended. Nothing is struck out: a request is answered once a version of the model was registered
that was trained on a later data version than the request names, from weights that had not learnt from its cases; the
registry knows both.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from infra.repository import TAG_PREFIX
from infra.storage import digest_of, read_json_lines, write_json_lines
from pipelines.workspace import Workspace
from registry.audit import TEST, USES
from registry.lineage import TAG
from registry.store import ModelVersion

REQUESTS_FILE = "retrain_requests.jsonl"
WITHDRAWN = "withdrawn"  # a cause
_TESTED = USES[TEST]
Request = dict[str, Any]


def path_of(place: Workspace) -> Path:
    """Where the requests of a workspace lie."""
    return place.root / REQUESTS_FILE


def read_requests(place: Workspace) -> list[Request]:
    """All requests, oldest first; DataError that names the line which cannot be read."""
    return read_json_lines(path_of(place), "a request for a retraining", ("id", "data_version"))


def ask(
    place: Workspace,
    *,
    cause: str,
    key: str,
    reason: str,
    actor: str,
    data_version: str,
    cases: Sequence[str],
    models: Sequence[dict[str, Any]],
) -> Request:
    """Append a request, or return the one that asked for as much before. It is the caller who commits the file.

    A later look may find fewer cases, as a copy has left the workspace since: nothing new is asked for then.
    `cases` are "dataset/case_id"; `models` are {"name", "version", "aliases", "uses"}; `data_version` is the newest
    one there is: only a later one can answer.
    """
    known = read_requests(place)
    for one in known:
        if (one["cause"], one["key"]) == (cause, key) and set(one["cases"]) >= set(cases):
            return one
    request: Request = {
        "id": digest_of([cause, key, sorted(cases)])[:16],
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "cause": cause,
        "key": key,
        "reason": reason,
        "actor": actor,
        "data_version": data_version,
        "datasets": sorted({case.partition("/")[0] for case in cases}),
        "cases": sorted(cases),
        "models": list(models),
    }
    write_json_lines(path_of(place), [*known, request])
    return request


def answered_by(request: Request, versions: Sequence[ModelVersion]) -> int | None:
    """The first version of later data than the request names that has not learnt from its cases; None without one."""
    learnt = learnt_from(request, versions)
    later = [
        one.version
        for one in versions
        if _number(one.tags.get(f"{TAG}data_version", "")) > _asked(request) and one.version not in learnt
    ]
    return min(later, default=None)


def learnt_from(request: Request, versions: Sequence[ModelVersion]) -> set[int]:
    """Versions that learnt from the cases of a request, and those that started from their weights.

    A training that is to answer the request must not start from one of them. `versions` are of one model; another
    model that the request names has numbers of its own.
    """
    asked = {one.name for one in versions}
    found = {int(one["version"]) for one in request["models"] if one["name"] in asked and set(one["uses"]) - {_TESTED}}
    weights = {one.weights_sha256 for one in versions if one.version in found and one.weights_sha256}
    for one in sorted(versions, key=lambda each: each.version):  # a parent is older
        if one.version in found or one.tags.get(f"{TAG}start_sha256", "") in weights:
            found.add(one.version)
            weights |= {one.weights_sha256} - {""}
    return found


def open_requests(place: Workspace, versions: Sequence[ModelVersion]) -> list[Request]:
    """The requests that no version has answered yet, oldest first; `versions` is `store.versions(MODEL_NAME)`."""
    return [one for one in read_requests(place) if answered_by(one, versions) is None]


def _asked(request: Request) -> int:
    return _number(str(request["data_version"]))


def _number(tag: str) -> int:
    digits = tag.removeprefix(TAG_PREFIX)
    return int(digits) if digits.isdigit() else 0
