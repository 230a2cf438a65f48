"""What must hold before anything is trained: no leakage, no external test set, a licence that allows it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from infra.errors import UsageError
from infra.storage import digest_of, read_json, write_json
from pipelines import events
from pipelines.workspace import Workspace
from preprocessing.schema import QUARANTINE_FILE, read_dataset_file
from preprocessing.schema.licences import LIMITS, why_left_out
from preprocessing.withdrawn import withdrawn_in

_LEAKAGE_FOLDER = "leakage"
_LEAKAGE_FORMAT = 1


def leakage(workspace: Workspace, names: Sequence[str]) -> dict[str, Any]:
    """`preprocessing.leakage.leakage` of dataset versions; remembered by what the versions hold."""
    from preprocessing.leakage import leakage as search
    from preprocessing.leakage import version_of

    versions = {name: read_dataset_file(workspace.data / name) for name in names}
    known = {name: [one["manifest_digest"], one["shards"]] for name, one in versions.items()}
    path = workspace.state / _LEAKAGE_FOLDER / f"{digest_of([_LEAKAGE_FORMAT, known])[:32]}.json"
    if not path.is_file():
        found = search({name: version_of(workspace.data / name) for name in names})
        for old in path.parent.glob("*.json"):
            old.unlink()
        write_json(path, found)
    value: dict[str, Any] = read_json(path)
    return value


def refuse_leakage(workspace: Workspace, names: Sequence[str]) -> None:
    """DataError where the versions share a patient or a picture across splits."""
    from preprocessing.leakage import refuse

    refuse(leakage(workspace, names))


def for_training(workspace: Workspace, names: Sequence[str]) -> list[str]:
    """The datasets among `names` to train on, by `train.datasets` and `train.licence` of params.yaml.

    Those left out, also because nothing of them is left, are told as events. UsageError where an external test set
    is asked for by name, or none is left.
    """
    train = workspace.params().train
    versions = {name: read_dataset_file(workspace.data / name) for name in names}
    external = [name for name in names if versions[name].get("evaluation_only")]
    if asked := sorted(set(train.datasets) & set(external)):
        msg = (
            f"params.yaml: train.datasets: expected datasets to train on, found {', '.join(asked)}: external test "
            "sets, which their cards keep for evaluation (evaluation_only). Take them out of train.datasets; while "
            "`datasets` lists them, they are ingested and evaluated"
        )
        raise UsageError(msg)
    chosen = []
    reasons = dict.fromkeys(external, "an external test set, kept for evaluation")
    for name in [name for name in train.datasets or names if name not in external]:
        why = why_left_out(versions[name].get("licence"), train.licence) or why_empty(workspace, name)
        if why is None:
            chosen.append(name)
        else:
            reasons[name] = why
    for name, reason in reasons.items():
        events.emit("left_out", dataset=name, reason=reason)
    if not chosen:
        left = "; ".join(f"{name}: {reason}" for name, reason in reasons.items())
        msg = f"nothing to train on: expected a dataset of params.yaml that may be trained on, found none. {left}"
        raise UsageError(msg)
    return chosen


def for_evaluation(workspace: Workspace, names: Sequence[str]) -> list[str]:
    """The datasets among `names` to measure on: without those of whose evaluated split withdrawals left nothing.

    Those left out are told as events: the candidate is not held against a champion that was measured on what is gone.
    """
    split, chosen = workspace.params().evaluate.split, []
    for name in names:
        if why := why_empty(workspace, name, split):
            events.emit("left_out", dataset=name, reason=why)
        else:
            chosen.append(name)
    return chosen


def why_empty(workspace: Workspace, name: str, split: str = "") -> str | None:
    """Why a dataset version, or one split of it, has no samples; None where it has some.

    None also for a split that is empty though nothing of the dataset was withdrawn: that is how it was divided.
    """
    version = read_dataset_file(workspace.data / name)
    if version["splits"].get(split) if split else version["shards"]:
        return None
    withdrawn = len(withdrawn_in(workspace.data / name / QUARANTINE_FILE))
    if version["shards"]:
        return f"nothing of its {split} split is left: {withdrawn} cases were withdrawn" if withdrawn else None
    counts = version["counts"]
    aside = counts["cases_quarantined"] - withdrawn
    return f"none of its {counts['cases_found']} cases is left: {withdrawn} were withdrawn, {aside} are in quarantine"


def limited(
    params: dict[str, Any], names: Iterable[str], licence: str | None, cards: Path | None = None
) -> tuple[dict[str, Any], list[str]]:
    """Parameters with the licence limit `licence` (None: the one that they have), and the `names` that it allows.

    What it leaves out is told as events, with the reason, and taken out of `datasets` and `train.datasets`,
    so that no stage makes or reads it. `cards` is the folder of a workspace's own cards. UsageError where no
    name is left.
    """
    from preprocessing.cards import load_card

    limit, listed = licence or params["train"].get("licence", "any"), list(names)
    if limit not in LIMITS:
        msg = f"--licence: expected one of {', '.join(LIMITS)}, found {limit!r}"
        raise UsageError(msg)
    if limit == "any":
        return ({**params, "train": {**params["train"], "licence": limit}} if licence else params), listed
    reasons: dict[str, str] = {}
    for name in dict.fromkeys([*listed, *params["datasets"]]):
        if why := why_left_out(asdict(load_card(name, cards).licence), limit):
            reasons[name] = why
            events.emit("left_out", dataset=name, reason=why)
    kept = [name for name in listed if name not in reasons]
    if not kept:
        left = "; ".join(f"{name}: {why}" for name, why in reasons.items())
        msg = f"licence limit {limit}: expected a dataset that it allows, found none. {left}"
        raise UsageError(msg)
    train = {**params["train"], "licence": limit}
    train["datasets"] = [name for name in train.get("datasets", []) if name not in reasons]
    datasets = [name for name in params["datasets"] if name not in reasons]
    return {**params, "train": train, "datasets": datasets}, kept
