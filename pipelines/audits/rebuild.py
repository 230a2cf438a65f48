"""Whether a model can be built again: every ingredient looked for, and the command."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from typing import Any

from infra import repository
from infra.errors import ServiceError
from infra.storage import sha256_bytes
from pipelines.audits import purged
from pipelines.audits.record import Record
from pipelines.workspace import PROJECT

Document = dict[str, Any]
LOCK_FILE = "requirements.lock"
_CHANGED = "-changed"


def answer(record: Record, model: Document, where: dict[str, str], withdrawn: Sequence[Document]) -> Document:
    """{"possible": bool, "verdict", "checks": [{"what", "ok", "found", "fix"}], "command"}.

    `model` is `audit_model`'s document; `where` gives the data version of each dataset whose manifest was found;
    `withdrawn` are cases of it that must not be used any more. A check whose `ok` is None is for a person to judge.
    """
    state = _state_commit(record, str(model["weights_sha256"]))
    checks = [
        _code(str(model["code_commit"])),
        _lock(str(model["code_commit"])),
        _tag(record, str(model["data_version"]), str(model["data_commit"])),
        *[_objects(record, dataset, where.get(dataset)) for dataset in model["manifest_digests"]],
        _state(state),
        _start(record, model, state),
        _allowed(withdrawn),
    ]
    missing = [one for one in checks if one["ok"] is False]
    possible = not missing
    verdict = "yes: every ingredient is there"
    if missing:
        must_not = "it must not be built again as it was" if withdrawn else "no"
        verdict = f"{must_not}: {'; '.join(one['what'] + ': ' + one['found'] for one in missing)}"
    return {"possible": possible, "verdict": verdict, "checks": checks, "command": command(record, model, state)}


def command(record: Record, model: Document, state: str) -> str:
    """The commands that build a model again from its code, its data version and its recipe, in order."""
    code = str(model["code_commit"]).removesuffix(_CHANGED)
    project, root = shlex.quote(str(PROJECT)), shlex.quote(str(record.place.root))
    return "\n".join(
        (
            f"git -C {project} checkout {code} && pip install --require-hashes -r {project}/{LOCK_FILE}",
            f"cd {root} && git checkout {state or model['data_version']} && (dvc checkout || dvc pull)",
            "dvc repro --force --single-item train && dvc repro --force --single-item evaluate",
        )
    )


def _check(what: str, ok: bool | None, found: str, fix: str = "") -> Document:
    return {"what": what, "ok": ok, "found": found, "fix": "" if ok else fix}


def _has(root: Any, name: str) -> bool:
    try:
        repository.git(root, "cat-file", "-e", name)
    except ServiceError:
        return False
    return True


def _code(commit: str) -> Document:
    what = "code commit"
    if commit.endswith(_CHANGED):
        plain = commit.removesuffix(_CHANGED)
        return _check(
            what, False, f"{plain[:12]} with changes that were never committed", "train from a clean checkout"
        )
    if commit == "unknown" or not commit:
        return _check(what, False, "not recorded: the code was no git checkout", "train from a git checkout")
    if not (PROJECT / ".git").exists():
        return _check(what, None, f"{commit[:12]}; this installation is no git checkout", "look for it in yours")
    there = _has(PROJECT, f"{commit}^{{commit}}")
    found = f"{commit[:12]} is {'there' if there else 'not in ' + str(PROJECT)}"
    return _check(what, there, found, "git fetch --all")


def _lock(commit: str) -> Document:
    what, plain = "lock file of packages", commit.removesuffix(_CHANGED)
    try:
        then = repository.git(PROJECT, "show", f"{plain}:{LOCK_FILE}")
    except ServiceError:
        return _check(what, False, f"no {LOCK_FILE} at {plain[:12]}", "git fetch --all")
    file = PROJECT / LOCK_FILE
    same = file.is_file() and file.read_text(encoding="utf-8").strip() == then.strip()
    now = "the same as now" if same else "other packages than now"
    return _check(what, True, f"{LOCK_FILE} at {plain[:12]}, SHA-256 {sha256_bytes(then.encode())[:12]}: {now}")


def _tag(record: Record, tag: str, commit: str) -> Document:
    what = "data version"
    if tag not in record.tags:
        return _check(what, False, f"the tag {tag} is not in {record.place.root}", "git fetch --tags")
    found = repository.git(record.place.root, "rev-list", "-n", "1", tag)
    if found != commit:
        return _check(what, False, f"{tag} is now {found[:12]}, the model names {commit[:12]}", "restore the tag")
    return _check(what, True, f"{tag} is there, at {commit[:12]}")


def _objects(record: Record, dataset: str, revision: str | None) -> Document:
    what = f"data of {dataset}"
    if revision is None:
        return _check(what, False, "its manifest is in no data version that can be read", "dvc pull")
    if why := purged.why(record.place, revision, dataset):
        return _check(what, False, why, "train again on data without the case")
    files = record.files(dataset, revision)
    where = record.objects.where(files.values(), remotes=False)
    absent = [md5 for md5, places in where.items() if not places]
    remote = record.objects.where(absent) if absent and record.objects.remotes else {}
    gone = sorted(name for name, md5 in files.items() if md5 in absent and not remote.get(md5))
    if gone:
        return _check(what, False, f"{len(gone)} of {len(files)} files are nowhere, first {gone[0]}", "dvc pull")
    fetched = sum(bool(places) for places in remote.values())
    found = f"{len(files)} files at {revision}: {len(files) - fetched} in the cache, {fetched} in a remote"
    return _check(what, True, found)


def _candidate(record: Record, revision: str) -> dict[str, str]:
    """File of the candidate that a revision of the workspace made -> MD5; empty where it made none."""
    entry = record.lock(revision).get("train") or {}
    outs = entry.get("outs") or []
    return record.objects.listing(str(outs[0]["md5"])) if outs else {}


def _state_commit(record: Record, weights_sha256: str) -> str:
    """The oldest commit of the workspace whose candidate has these weights; empty where none is found."""
    asked: dict[str, bool] = {}
    found = ""
    for commit in record.state_commits():
        entry = record.lock(commit).get("train") or {}
        if not entry.get("outs"):
            continue
        folder = str(entry["outs"][0]["md5"])
        if folder not in asked:
            try:
                files = _candidate(record, commit)
                said = json.loads(record.objects.fetched(files["train.json"]).read_bytes())
                asked[folder] = said["weights_sha256"] == weights_sha256
            except (ServiceError, KeyError):
                asked[folder] = False
        if asked[folder]:
            found = commit
        elif found:
            break
    return found


def _state(commit: str) -> Document:
    if not commit:
        found = "no commit of this workspace made these weights: params and recipe are those of the data version"
        return _check("parameters and recipe", None, found, "compare params.yaml with the parameters above")
    return _check("parameters and recipe", True, f"params.yaml and recipes/ at {commit[:12]} of the workspace")


def _start(record: Record, model: Document, state: str) -> Document:
    what, sha256 = "start weights", str(model["parent"]["start_sha256"])
    if not state:
        return _check(what, None, f"SHA-256 {sha256[:12]}", "find the file and set train.start to it")
    try:
        files = _candidate(record, state)
        said = json.loads(record.objects.fetched(files["train.json"]).read_bytes()).get("start")
        kept = record.objects.where([files["start.safetensors"]])[files["start.safetensors"]]
    except (ServiceError, KeyError) as error:
        return _check(what, False, f"the candidate of {state[:12]} cannot be read: {error}", "dvc pull")
    made = "our own initialisation, a function of the seed" if not said else "weights that were loaded"
    if not kept and said:
        return _check(what, False, f"{sha256[:12]}, {made}: in no cache or remote", "dvc pull")
    return _check(what, True, f"{sha256[:12]}, {made}; kept in {', '.join(kept) or 'no place, made anew'}")


def _allowed(withdrawn: Sequence[Document]) -> Document:
    what = "consent"
    if not withdrawn:
        return _check(what, True, "none of its cases has been withdrawn")
    names = ", ".join(f"{one['dataset']}/{one['case_id']}" for one in withdrawn[:5])
    more = f" and {len(withdrawn) - 5} more" if len(withdrawn) > 5 else ""
    return _check(what, False, f"withdrawn since: {names}{more}", "segfoundry flow run trains without them")
