"""`fingerprint.json`: what a dataset version is like in numbers, and how far two versions are apart.

Every figure is a histogram over fixed edges, so that versions are compared from their fingerprints alone.
The distance is the population stability index, the sum over bins of (after - before) * ln(after / before)
of the shares (Siddiqi, Credit Risk Scorecards, 2006, who calls 0.25 a major shift and below 0.1 none); half
a count is added to every bin so that an empty one is no infinity. Without any shift the index of two
samples of n and m is distributed as (1/n + 1/m) times chi-square with bins - 1 degrees of freedom (Yurdakul
and Naranjo, J. Risk Model Validation 14(4), 2020). So a figure has moved where its index is above 0.25 and
above the 99th percentile of that noise; n and m count groups, since slices of one patient are no new evidence.
"""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

FINGERPRINT_VERSION = "1"
MAJOR_SHIFT = 0.25
_NOISE_Z = 2.326  # 99th percentile of the normal distribution
QUANTILES = {"p05": 0.05, "p25": 0.25, "p50": 0.5, "p75": 0.75, "p95": 0.95}


def _octaves(low: int, high: int) -> list[float]:
    """Half octaves from 2^low to 2^high."""
    return [round(2 ** (step / 2), 6) for step in range(2 * low, 2 * high + 1)]


# figure -> (unit, edges); what lies outside falls into the first or the last bin
FIGURES: dict[str, tuple[str, list[float]]] = {
    "height": ("px", _octaves(4, 15)),
    "width": ("px", _octaves(4, 15)),
    "spacing_in_plane": ("mm", _octaves(-12, 4)),
    "spacing_slices": ("mm", _octaves(-6, 5)),
    "mean": ("grey levels", [float(edge) for edge in range(0, 257, 16)]),
    "contrast": ("grey levels", [float(edge) for edge in range(0, 129, 8)]),
    "object_side": ("share of the picture's side", _octaves(-9, 0)),
    "object_diameter": ("mm", _octaves(-9, 9)),
    "objects_per_sample": ("objects", [0, 1, 2, 3, 5, 9, 17, 33, 65, 129, 257, 513]),
}


def fingerprint(manifest: pa.Table, cases: pa.Table, hashes: pa.Table) -> dict[str, Any]:
    """The fingerprint of a version from its tables.

    Returns {"schema", "counts": {"samples", "cases", "groups"}, "figures": {name: {"unit", "edges", "counts",
    "missing", "p05" … "p95"}}, "concepts": {name: {"samples", "absent", "objects"}}}. "missing" counts values
    that are not known, e.g. a spacing; quantiles are null where there is no value at all.
    """
    rows = manifest.select(["case_id", "group_id", "height", "width", "spacing_mm_yx", "objects", "absent"]).to_pylist()
    values = _values(rows)
    spacings = [row["original_spacing_mm_xyz"] for row in cases.to_pylist() if row["dimensions"] == 3]
    values["spacing_slices"] = [max(spacing) if spacing else None for spacing in spacings]
    seen = hashes.filter(pc.not_equal(hashes.column("kind"), "volume"))
    for name in ("mean", "contrast"):
        values[name] = seen.column(name).to_pylist()
    return {
        "schema": FINGERPRINT_VERSION,
        "counts": {
            "samples": len(rows),
            "cases": len({row["case_id"] for row in rows}),
            "groups": len({row["group_id"] for row in rows}),
        },
        "figures": {name: _figure(name, values[name]) for name in FIGURES},
        "concepts": _concepts(rows),
    }


def drift(before: dict[str, Any], after: dict[str, Any]) -> dict[str, Any]:
    """How far a fingerprint is from an earlier one.

    Returns {"moved": names of what moved, "counts": {name: [before, after]}, "figures": [{"figure", "unit",
    "psi", "tolerance", "before", "after" (medians), "moved"}], "concepts": the same of the share of samples
    that show each}. A concept that only one of the two knows has moved.
    """
    units = before["counts"]["groups"], after["counts"]["groups"]
    figures = []
    for name, new in after["figures"].items():
        old = before["figures"].get(name)
        if old is None or old["edges"] != new["edges"]:
            continue  # another schema of figures
        bins = [np.array([*one["counts"], one["missing"]], dtype=float) for one in (old, new)]
        index, tolerance = stability_index(bins[0], bins[1], units)
        figures.append(
            {"figure": name, "unit": new["unit"], "psi": round(index, 4), "tolerance": round(tolerance, 4),
             "before": old["p50"], "after": new["p50"], "moved": index > tolerance}
        )  # fmt: skip
    concepts = [_concept_drift(name, before, after) for name in sorted({*before["concepts"], *after["concepts"]})]
    return {
        "moved": [one["figure"] for one in figures if one["moved"]]
        + [one["concept"] for one in concepts if one["moved"]],
        "counts": {name: [before["counts"][name], after["counts"][name]] for name in after["counts"]},
        "figures": figures,
        "concepts": concepts,
    }


def stability_index(before: NDArray[Any], after: NDArray[Any], units: tuple[int, int]) -> tuple[float, float]:
    """Population stability index of two histograms over the same bins, and what it may be (see the module's text).

    `units` are the numbers of independent groups behind each. Bins that are empty on both sides do not count.
    """
    used = (before + after) > 0
    bins = int(used.sum())
    if bins < 2 or not before.sum() or not after.sum():
        return 0.0, MAJOR_SHIFT
    shares = [(one[used] + 0.5) / (one[used] + 0.5).sum() for one in (before, after)]
    index = float(((shares[1] - shares[0]) * np.log(shares[1] / shares[0])).sum())
    noise = sum(1 / max(unit, 1) for unit in units) * _chi_square(bins - 1)
    return index, max(MAJOR_SHIFT, noise)


def _chi_square(degrees: int) -> float:
    """The 99th percentile of chi-square (Wilson and Hilferty, PNAS 17, 1931)."""
    part = 2 / (9 * degrees)
    return degrees * (1 - part + _NOISE_Z * math.sqrt(part)) ** 3


def _values(rows: list[dict[str, Any]]) -> dict[str, list[float | None]]:
    found: dict[str, list[float | None]] = {name: [] for name in FIGURES}
    for row in rows:
        spacing = row["spacing_mm_yx"]
        found["height"].append(row["height"])
        found["width"].append(row["width"])
        found["spacing_in_plane"].append(math.sqrt(spacing[0] * spacing[1]) if spacing else None)
        found["objects_per_sample"].append(len(row["objects"]))
        for item in row["objects"]:
            found["object_side"].append(math.sqrt(item["area"] / (row["height"] * row["width"])))
            size = item["area"] * spacing[0] * spacing[1] if spacing else None
            found["object_diameter"].append(2 * math.sqrt(size / math.pi) if size is not None else None)
    return found


def _figure(name: str, values: list[float | None]) -> dict[str, Any]:
    unit, edges = FIGURES[name]
    known = np.array([value for value in values if value is not None], dtype=float)
    place = np.clip(np.searchsorted(edges, known, side="right") - 1, 0, len(edges) - 2)
    quantiles = {
        key: round(float(np.quantile(known, share)), 6) if len(known) else None for key, share in QUANTILES.items()
    }
    return {
        "unit": unit,
        "edges": edges,
        "counts": np.bincount(place, minlength=len(edges) - 1).tolist(),
        "missing": len(values) - len(known),
        **quantiles,
    }


def _concepts(rows: list[dict[str, Any]]) -> dict[str, dict[str, int]]:
    samples: Counter[str] = Counter()
    absent: Counter[str] = Counter()
    objects: Counter[str] = Counter()
    for row in rows:
        objects.update(item["concept"] for item in row["objects"])
        samples.update({item["concept"] for item in row["objects"]})
        absent.update(row["absent"])
    names = sorted({*samples, *absent})
    return {name: {"samples": samples[name], "absent": absent[name], "objects": objects[name]} for name in names}


def _concept_drift(name: str, before: dict[str, Any], after: dict[str, Any]) -> dict[str, Any]:
    shares, bins = [], []
    for version in (before, after):
        shown, total = version["concepts"].get(name, {}).get("samples", 0), version["counts"]["samples"]
        shares.append(round(shown / total, 4) if total else 0.0)
        bins.append(np.array([shown, total - shown], dtype=float))
    units = before["counts"]["groups"], after["counts"]["groups"]
    index, tolerance = stability_index(bins[0], bins[1], units)
    only_one = (name in before["concepts"]) != (name in after["concepts"])
    return {
        "concept": name, "psi": round(index, 4), "tolerance": round(tolerance, 4),
        "before": shares[0], "after": shares[1], "moved": only_one or index > tolerance,
    }  # fmt: skip
