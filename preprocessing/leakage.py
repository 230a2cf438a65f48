"""Groups or identical content on both sides of a split, within a dataset and between datasets."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import pyarrow as pa

_HELD_OUT = ("val", "test")
_EXAMPLES = 10


def leakage(manifests: dict[str, pa.Table]) -> dict[str, Any]:
    """Compare every training part with every held-out part.

    Group ids are pseudonyms under one key, so equal ids mean one patient, also between datasets of one
    family. Returns {"ok", "matrix": [{"train", "held_out", "split", "groups", "contents"}] with the
    crossings found, "examples": [{"kind", "value", "samples"}]}; `ok` when the matrix is empty.
    """
    places: dict[tuple[str, str], dict[tuple[str, str], list[str]]] = defaultdict(lambda: defaultdict(list))
    for dataset, manifest in sorted(manifests.items()):
        for row in manifest.select(["sample_id", "split", "group_id", "content_sha256"]).to_pylist():
            for kind, value in (("group", row["group_id"]), ("content", row["content_sha256"])):
                places[kind, value][dataset, row["split"]].append(row["sample_id"])
    found: dict[tuple[str, str, str], dict[str, int]] = defaultdict(lambda: {"groups": 0, "contents": 0})
    examples: list[dict[str, Any]] = []
    for (kind, value), where in sorted(places.items()):
        crossings = [
            (train, held, split)
            for train, part in where
            if part == "train"
            for held, split in where
            if split in _HELD_OUT
        ]
        for crossing in crossings:
            found[crossing][f"{kind}s"] += 1
        if crossings and len(examples) < _EXAMPLES:
            samples = sorted(samples[0] for samples in where.values())
            examples.append({"kind": kind, "value": value, "samples": samples})
    matrix = [
        {"train": train, "held_out": held, "split": split, **counts}
        for (train, held, split), counts in sorted(found.items())
    ]
    return {"ok": not matrix, "matrix": matrix, "examples": examples}
