"""Gates on the quality of data before a training: data that is plainly broken stops the run, with the reason.

Single bad cases are in quarantine by then; this is about a dataset as a whole: a changed export that a card no longer
understands, half an upload, a shard that a disk damaged.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from infra.errors import DataError, UsageError
from infra.params import Quality
from pipelines import history, verify
from pipelines.workspace import Workspace
from preprocessing.schema import QUARANTINE_FILE
from preprocessing.withdrawn import read_tombstones, withdrawn_in


def findings(place: Workspace, names: Sequence[str]) -> list[str]:
    """What speaks against training on the dataset versions `names`; one sentence each."""
    limits = place.params().quality
    versions = history.data_versions(place)
    found = []
    for name in names:
        checked = verify.dataset(place, name)
        found += [f"{name}: {problem}" for problem in checked["problems"]]
        if checked["ok"]:
            taken = withdrawn_in(place.data / name / QUARANTINE_FILE)
            found += _refused(name, checked["counts"], len(taken), limits)
            found += _lost(place, name, checked["counts"]["samples"], taken, versions, limits.max_lost_samples)
    return found


def _refused(name: str, counts: dict[str, Any], withdrawn: int, limits: Quality) -> list[str]:
    """What speaks against a version by its cases in quarantine.

    A withdrawn case counts as found and not as refused: the share of the others is what it was before. Where nothing
    is left for that alone, training and evaluation leave the dataset out (`gates.why_empty`).
    """
    cases, aside = counts["cases_found"], counts["cases_quarantined"] - withdrawn
    if cases and aside / cases > limits.max_quarantined:
        return [
            f"{name}: expected at most {limits.max_quarantined:.0%} of its cases in quarantine "
            f"(quality.max_quarantined), found {aside} of {cases}; data/{name}/quarantine.parquet says why"
        ]
    if not counts["samples"] and not withdrawn:
        return [
            f"{name}: expected samples, found none of {cases} cases that can be used; "
            f"data/{name}/quarantine.parquet says why"
        ]
    return []


def _lost(
    place: Workspace, name: str, samples: int, taken: Collection[str], versions: list[str], limit: float
) -> list[str]:
    older = history.version_before(place, name, versions[-1]) if versions else None
    if older is None:
        return []
    before = _samples_at(place, name, older, taken)
    if not before or (before - samples) / before <= limit:
        return []
    return [
        f"{name}: expected to lose at most {limit:.0%} of its samples from one data version to the next "
        f"(quality.max_lost_samples), found {samples} after {before} in {older} (those that were withdrawn since are "
        "not counted). If that is meant, raise the limit in params.yaml for this run; else restore its raw files"
    ]


def _samples_at(place: Workspace, name: str, tag: str, taken: Collection[str]) -> int:
    """The samples of a dataset at a data version, without those that tombstones of now keep out.

    By the tombstones too, not only by the cases `taken` into quarantine: the raw files of a withdrawn case may be gone.
    """
    out = [*taken, *(one.identifier for one in read_tombstones(place.tombstones) if one.dataset == name)]
    try:
        if not out:
            return int(history.told(place, name, tag)["counts"]["samples"])
        manifest = history.manifest_at(place, name, tag).select(["case_id", "group_id"])
    except UsageError:
        return 0
    gone = pc.or_(*(pc.is_in(manifest[key], pa.array(out, pa.string())) for key in ("case_id", "group_id")))
    return int(manifest.num_rows - (pc.sum(gone).as_py() or 0))


def refuse(place: Workspace, names: Sequence[str]) -> None:
    """DataError with every finding."""
    if found := findings(place, names):
        raise DataError("\n".join(found))
