"""Candidate against champion, pair by pair: rows of two `evaluation.parquet` on the samples that both were asked.

A pair is one sample and one concept that is in it, asked by text. Rows have the form of `paired` in
`evaluation.json`, which holds the same where one call of `segfoundry evaluate` measured both models.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from infra.statistics import interval, mean_replicates, over_strata

LEVELS = ("all", "dataset", "modality", "concept")
METRIC = "dice_text"
_COLUMNS = ["sample_id", "dataset", "modality", "group_id", "concept", "dice"]

Row = dict[str, Any]


def measured_together(evaluation: Row, champion_weights_sha256: str) -> list[Row] | None:
    """The rows of an `evaluation.json` that measured this champion in the same call; None where it did not."""
    against = evaluation.get("against") or {}
    if against.get("weights_sha256") != champion_weights_sha256:
        return None
    found = [one for one in evaluation.get("paired") or [] if one["against"] == "champion" and one["metric"] == METRIC]
    return found or None


def compare(
    candidate: Path, champion: Path, *, same_data: Collection[str] = (), external: Collection[str] = ()
) -> list[Row]:
    """Paired differences of text Dice, candidate − champion, by level and name.

    `candidate` and `champion` are `evaluation.parquet`. `same_data` names the datasets whose manifest both were
    evaluated on: there the candidate must have every pair of the champion, and one without counts as `missing`; in
    others the pairs that are in both are compared, and what is gone from the data is not held against it. A Dice
    that is no number is missing everywhere. `external` datasets stand apart.

    Each row: {"against": "champion", "level", "name", "external", "metric", "before", "after", "difference",
    "interval": [low, high] or None, "groups", "pairs", "missing"}. Levels above a dataset are means over datasets.
    """
    answered = _read(candidate).select(["sample_id", "concept", "dice"])
    answered = answered.append_column("asked", pa.repeat(True, answered.num_rows))
    pairs = _read(champion).join(
        answered,
        keys=["sample_id", "concept"],
        join_type="left outer",
        left_suffix="",
        right_suffix="_after",
    )
    pairs = pairs.filter(pc.is_finite(pairs["dice"])).sort_by([("sample_id", "ascending"), ("concept", "ascending")])
    names = {name: _text(pairs, name) for name in ("dataset", "modality", "concept", "group_id")}
    before, after = _numbers(pairs, "dice"), _numbers(pairs, "dice_after")
    asked = np.asarray(pc.is_valid(pairs["asked"]).to_numpy(), dtype=bool)
    known = np.isfinite(after)
    missing = ~known & (asked | np.isin(names["dataset"], sorted(same_data)))
    outside = np.isin(names["dataset"], sorted(external))
    return [
        _row(level, name, apart, names, before, after, known & chosen, int((missing & chosen).sum()))
        for level, name, apart, chosen in _strata(names, outside)
        if (known & chosen).any() or (missing & chosen).any()
    ]


def _read(path: Path) -> pa.Table:
    """Text rows of the model itself on concepts that are present."""
    keep = [("prompt", "=", "text"), ("model", "=", "after"), ("present", "=", True)]
    table = pq.read_table(path, columns=_COLUMNS, filters=keep)
    kinds = [pa.float64() if name == "dice" else pa.string() for name in _COLUMNS]
    return table.cast(pa.schema(list(zip(_COLUMNS, kinds, strict=True))))


def _text(table: pa.Table, name: str) -> NDArray[np.str_]:
    return np.asarray(table[name].fill_null("").to_pylist(), dtype=np.str_)


def _numbers(table: pa.Table, name: str) -> NDArray[np.float64]:
    return np.asarray(table[name].fill_null(float("nan")).to_numpy(), dtype=np.float64)


def _strata(
    names: dict[str, NDArray[np.str_]], outside: NDArray[np.bool_]
) -> Iterator[tuple[str, str, bool, NDArray[np.bool_]]]:
    for apart in (False, True):
        side = outside == apart
        yield "all", "", apart, side
        for level in LEVELS[1:]:
            for name in np.unique(names[level][side]):
                yield level, str(name), apart, side & (names[level] == name)


def _row(
    level: str,
    name: str,
    external: bool,
    names: dict[str, NDArray[np.str_]],
    before: NDArray[np.float64],
    after: NDArray[np.float64],
    chosen: NDArray[np.bool_],
    missing: int,
) -> Row:
    parts: dict[str, NDArray[np.intp]] = {
        str(one): np.flatnonzero(chosen & (names["dataset"] == one)) for one in np.unique(names["dataset"][chosen])
    }
    return {
        "against": "champion",
        "level": level,
        "name": name,
        "external": external,
        "metric": METRIC,
        "before": _mean([before[at] for at in parts.values()]),
        "after": _mean([after[at] for at in parts.values()]),
        "difference": _mean([after[at] - before[at] for at in parts.values()]),
        "interval": _interval(f"champion {level} {name} {external}", parts, names["group_id"], after - before),
        "groups": int(np.unique(names["group_id"][chosen]).size),
        "pairs": int(chosen.sum()),
        "missing": missing,
    }


def _mean(parts: Sequence[NDArray[np.float64]]) -> float | None:
    """Mean over datasets of the mean over pairs."""
    return float(np.mean([float(part.mean()) for part in parts])) if parts else None


def _interval(
    name: str, parts: dict[str, NDArray[np.intp]], groups: NDArray[np.str_], difference: NDArray[np.float64]
) -> list[float] | None:
    draws = [
        (float(difference[at].mean()), mean_replicates(groups[at].tolist(), difference[at], f"{name} {dataset}"))
        for dataset, at in parts.items()
    ]
    return interval(over_strata(draws)) if draws else None
