"""The same patient or the same picture on both sides of a split, within a dataset and between datasets.

Kinds of crossing: `groups` (equal group ids: one patient, video or slide), `contents` (equal pixels and
labels), `pixels` (equal pixels, other labels), `near` (the same picture after JPEG, resizing, a flip,
another window) and `volumes` (the same volume, in any orientation). A picture that shows nothing, such as
the black slice at the end of a scan, is no evidence.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from infra.errors import DataError
from preprocessing import hashes, schema
from preprocessing.dedup import Match, Part, matches

KINDS = ("groups", "contents", "pixels", "near", "volumes")
# Train against both held-out parts, and validation, by which thresholds are chosen, against test.
_SIDES = (("train", ("val", "test")), ("val", ("test",)))
_EXAMPLES = 10
_COLUMNS = ["sample_id", "case_id", "split", "group_id", "content_sha256"]


@dataclass(frozen=True)
class Version:
    """A dataset version, as far as leakage asks: its manifest, its hashes, and its samples' pixels by id."""

    manifest: pa.Table
    hashes: pa.Table
    load: Callable[[Iterable[str]], Iterator[tuple[str, NDArray[np.uint8]]]]


def version_of(folder: Path) -> Version:
    """The version in a folder of `data/`."""
    return Version(
        schema.read_manifest(folder), hashes.of_version(folder), lambda samples: hashes.pictures(folder, samples)
    )


def leakage(versions: dict[str, Version]) -> dict[str, Any]:
    """Compare every part that is trained on, or chosen by, with every part that is held out from it.

    Group ids are pseudonyms under one key, so equal ids mean one patient, also between datasets of one
    family. Returns {"ok", "datasets", "matrix": [{"train", "part", "held_out", "split", and a count of each
    of `KINDS`}] with the crossings found, "examples": [{"kind", "samples", "value" or "correlation"}]};
    `ok` when the matrix is empty. `part` is "train", or "val" where validation met test.
    """
    found: dict[tuple[str, str, str, str], dict[str, int]] = defaultdict(lambda: dict.fromkeys(KINDS, 0))
    examples: dict[str, list[dict[str, Any]]] = {kind: [] for kind in KINDS}
    for kind, value, left, right, samples in _shared(versions):
        found[*left, *right][kind] += 1
        examples[kind].append({"kind": kind, "value": value, "samples": samples})
    rows = {name: _rows(name, version) for name, version in versions.items()}
    for match in _matches(rows, versions):
        samples = [match.left["key"], match.right["key"]]
        kind = {"pixels": "pixels", "near": "near", "volume": "volumes"}[match.kind]
        if kind == "pixels" and match.left["content_sha256"] == match.right["content_sha256"]:
            continue  # counted with its labels
        found[*_place(match.left), *_place(match.right)][kind] += 1
        examples[kind].append({"kind": kind, "correlation": match.correlation, "samples": samples})
    matrix = [
        {"train": left, "part": part, "held_out": right, "split": split, **counts}
        for (left, part, right, split), counts in sorted(found.items())
    ]
    shown = [one for kind in KINDS for one in examples[kind][: max(1, _EXAMPLES // len(KINDS))]]
    return {"ok": not matrix, "datasets": sorted(versions), "matrix": matrix, "examples": shown}


def row_of(found: dict[str, Any], dataset: str) -> dict[str, Any]:
    """A dataset's row and column of the matrix that `leakage` found.

    Returns {"ok", "said": a sentence, "rows": [{"with", "out", "in"}]} with a row for every dataset, itself first:
    `out` counts by kind what this dataset trains on (or chooses by) and the other holds out, `in` the reverse;
    empty where there is nothing.
    """
    cells: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)
    for one in found["matrix"]:
        cells[one["train"], one["held_out"]].update({kind: one[kind] for kind in KINDS})
    others = [name for name in found["datasets"] if name != dataset]
    rows = [
        {"with": name, "out": _told(cells[dataset, name]), "in": _told(cells[name, dataset])}
        for name in (dataset, *others)
    ]
    crossed = [row["with"] for row in rows if row["out"] or row["in"]]
    beside = f"the {len(others)} other datasets" if len(others) != 1 else "the other dataset"
    said = f"No patient, picture or volume on both sides of a split, within this dataset or with {beside} beside it."
    if crossed:
        said = f"Shared across splits with {', '.join(crossed)}: training refuses such data."
    return {"ok": not crossed, "said": said, "rows": rows}


def _told(counts: Counter[str]) -> str:
    return ", ".join(f"{counts[kind]} {kind}" for kind in KINDS if counts[kind])


def refuse(found: dict[str, Any]) -> None:
    """DataError for the result of `leakage` where it found a crossing: such data must train nothing."""
    if found["ok"]:
        return
    lines = []
    for one in found["matrix"][:5]:
        counts = _told(Counter({kind: one[kind] for kind in KINDS}))
        lines.append(f"{one['train']} ({one['part']}) and {one['held_out']} ({one['split']}) share {counts}")
    samples = " and ".join(found["examples"][0]["samples"]) if found["examples"] else ""
    more = f"; and {len(found['matrix']) - 5} more" if len(found["matrix"]) > 5 else ""
    msg = (
        f"leakage: expected no patient or picture on both sides of a split, found: {'; '.join(lines)}{more}. "
        f"First: {samples}. `segfoundry data leakage` lists them. Give both cards one `family` where equal group names "
        "mean equal patients, name the files of one side in its card's `not_data`, or take one of the two datasets "
        "out of params.yaml; then ingest again"
    )
    raise DataError(msg)


def _shared(
    versions: dict[str, Version],
) -> Iterator[tuple[str, str, tuple[str, str], tuple[str, str], list[str]]]:
    """Groups and contents that lie in two parts: (kind, value, left place, right place, a sample of each)."""
    places: dict[tuple[str, str], dict[tuple[str, str], str]] = defaultdict(dict)
    for dataset, version in sorted(versions.items()):
        nothing = set(version.hashes.filter(pc.is_null(version.hashes.column("code"))).column("key").to_pylist())
        for row in version.manifest.select(_COLUMNS).to_pylist():
            place = (dataset, row["split"])
            places["groups", row["group_id"]].setdefault(place, row["sample_id"])
            if row["sample_id"] not in nothing:
                places["contents", row["content_sha256"]].setdefault(place, row["sample_id"])
    for (kind, value), where in sorted(places.items()):
        for left in where:
            for right in where:
                if any(left[1] == part and right[1] in held for part, held in _SIDES):
                    yield kind, value, left, right, [where[left], where[right]]


def _rows(dataset: str, version: Version) -> list[dict[str, Any]]:
    manifest = version.manifest.select(_COLUMNS).to_pylist()
    contents = {row["sample_id"]: row["content_sha256"] for row in manifest}
    cases = {row["case_id"]: {"group_id": row["group_id"], "split": row["split"]} for row in manifest}
    return [
        {**row, **cases[row["case_id"]], "dataset": dataset, "content_sha256": contents.get(row["key"])}
        for row in version.hashes.to_pylist()
    ]


def _place(row: dict[str, Any]) -> tuple[str, str]:
    return row["dataset"], row["split"]


def _matches(rows: dict[str, list[dict[str, Any]]], versions: dict[str, Version]) -> Iterator[Match]:
    def load(keys: Iterable[str]) -> Iterator[tuple[str, NDArray[np.uint8]]]:
        wanted: dict[str, list[str]] = defaultdict(list)
        for key in keys:
            wanted[key.partition("/")[0]].append(key)
        for dataset, samples in wanted.items():
            yield from versions[dataset].load(samples)

    for part, held in _SIDES:
        left = [row for each in rows.values() for row in each if row["split"] == part]
        right = [row for each in rows.values() for row in each if row["split"] in held]
        yield from matches(Part(left, load), Part(right, load))
