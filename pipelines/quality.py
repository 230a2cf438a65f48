"""Gates on the quality of data before a training: data that is plainly broken stops the run, with the reason.

Single bad cases are in quarantine by then; this is about a dataset as a whole: a changed export that a card no longer
understands, half an upload, a shard that a disk damaged.
"""

from __future__ import annotations

from collections.abc import Sequence

from infra.errors import DataError, UsageError
from pipelines import history, verify
from pipelines.workspace import Workspace
from preprocessing.schema import read_dataset_file


def findings(place: Workspace, names: Sequence[str]) -> list[str]:
    """What speaks against training on the dataset versions `names`; one sentence each."""
    limits = place.params().quality
    versions = history.data_versions(place)
    found = []
    for name in names:
        counts = read_dataset_file(place.data / name)["counts"]
        cases, aside = counts["cases_found"], counts["cases_quarantined"]
        if not counts["samples"]:
            found.append(
                f"{name}: expected samples, found none of {cases} cases that can be used; "
                f"data/{name}/quarantine.parquet says why"
            )
        elif cases and aside / cases > limits.max_quarantined:
            found.append(
                f"{name}: expected at most {limits.max_quarantined:.0%} of its cases in quarantine "
                f"(quality.max_quarantined), found {aside} of {cases}; data/{name}/quarantine.parquet says why"
            )
        found += _lost(place, name, counts["samples"], versions, limits.max_lost_samples)
        found += [f"{name}: {problem}" for problem in verify.dataset(place, name)["problems"]]
    return found


def _lost(place: Workspace, name: str, samples: int, versions: list[str], limit: float) -> list[str]:
    older = history.version_before(place, name, versions[-1]) if versions else None
    if older is None:
        return []
    before = _samples_at(place, name, older)
    if not before or (before - samples) / before <= limit:
        return []
    return [
        f"{name}: expected to lose at most {limit:.0%} of its samples from one data version to the next "
        f"(quality.max_lost_samples), found {samples} after {before} in {older}. If that is meant, raise the limit in "
        "params.yaml for this run; else restore its raw files"
    ]


def _samples_at(place: Workspace, name: str, tag: str) -> int:
    try:
        return int(history.told(place, name, tag)["counts"]["samples"])
    except UsageError:
        return 0


def refuse(place: Workspace, names: Sequence[str]) -> None:
    """DataError with every finding."""
    if found := findings(place, names):
        raise DataError("\n".join(found))
