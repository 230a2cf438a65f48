"""What the champion was measured for and the candidate is not any more: nothing drops out of the gate silently.

A dataset that leaves `params.yaml`, a concept with another name, a release with other sample ids: of each the pairs in
common are gone, and the rules that compare would not ask for it. So each dataset and each concept in it that the
champion has pairs of must have some in common with the candidate, unless a person says that it is gone, or every case
of it was withdrawn.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from registry.gate_rules import COVERAGE_RULE, RuleResult

_KEYS = ["sample_id", "dataset", "concept"]
_NAMES = ["case_id", "group_id"]  # what a tombstone names


@dataclass(frozen=True)
class Part:
    """One concept in one dataset, asked by text where it is present.

    `pairs` are the champion's, `ours` the candidate's, `shared` those that both were measured on; `withdrawn`: every
    case of the champion's pairs is.
    """

    dataset: str
    concept: str
    pairs: int
    ours: int
    shared: int
    withdrawn: bool = False


def coverage(
    candidate: Path, champion: Path, withdrawn: Mapping[str, Collection[str]], *, together: bool = False
) -> list[Part]:
    """The parts that the champion was measured for, sorted; both files are `evaluation.parquet`.

    `withdrawn` has cases and groups by dataset. `together`: the champion was measured on the candidate's samples, so
    that all that the candidate has is in common, whatever the samples' names were when the champion was registered.
    """
    ours, theirs = _read(candidate), _read(champion)
    known = ours.select(["sample_id", "concept"]).append_column("shared", pa.repeat(True, ours.num_rows))
    joined = theirs.join(known, keys=["sample_id", "concept"], join_type="left outer")
    joined = joined.append_column("out", _withdrawn(joined, withdrawn))
    counted = joined.group_by(["dataset", "concept"]).aggregate(
        [("sample_id", "count"), ("shared", "count"), ("out", "min")]
    )
    of_ours = ours.group_by(["dataset", "concept"]).aggregate([("sample_id", "count")]).to_pylist()
    here = {(row["dataset"], row["concept"]): int(row["sample_id_count"]) for row in of_ours}
    parts = []
    for row in counted.to_pylist():
        own = here.get((row["dataset"], row["concept"]), 0)
        shared = own if together else int(row["shared_count"])
        pairs, out = int(row["sample_id_count"]), bool(row["out_min"])
        parts.append(Part(row["dataset"], row["concept"], pairs, own, shared, out))
    return sorted(parts, key=lambda one: (one.dataset, one.concept))


def by_figures(candidate: Mapping[str, Any], champion: Mapping[str, Any]) -> list[Part]:
    """The same from two `evaluation.json`, where a model's rows are gone: by names alone, withdrawn cases unknown."""
    ours = {(dataset, concept): pairs for dataset, concept, pairs in _pairs(candidate)}
    return [
        Part(dataset, concept, pairs, ours.get((dataset, concept), 0), ours.get((dataset, concept), 0))
        for dataset, concept, pairs in sorted(_pairs(champion))
    ]


def still_measured(
    parts: Sequence[Part], allowed: Collection[str], champion: str
) -> tuple[list[RuleResult], frozenset[str]]:
    """A result for each part that is gone, those that are excused too, and the datasets that are gone and excused.

    `allowed` are "DATASET" or "DATASET/CONCEPT", what a person says is gone. `champion` is its name in a sentence.
    """
    results: list[RuleResult] = []
    excused: set[str] = set()
    for dataset, found in groupby(sorted(parts, key=lambda one: (one.dataset, one.concept)), lambda one: one.dataset):
        ones = list(found)
        gone = [one for one in ones if not one.shared]
        blocking = [one for one in gone if not _why_excused(one, allowed)]
        if len(blocking) == len(ones):
            results.append(_blocks(dataset, ones, champion))
            continue
        if len(gone) == len(ones) and not blocking:
            excused.add(dataset)
        results += [
            _blocks(f"{dataset}/{one.concept}", [one], champion)
            if one in blocking
            else _excused(one, allowed, champion)
            for one in gone
        ]
    if not parts:  # its files are gone, or it has no test case: other rules say so
        results.append(RuleResult(COVERAGE_RULE, None, None, True, f"No pairs of {champion} are known."))
    elif not results:
        text = f"All that {champion} was measured for is measured still: {len(parts)} concepts in datasets."
        results.append(RuleResult(COVERAGE_RULE, None, None, True, text))
    return results, frozenset(excused)


def _why_excused(part: Part, allowed: Collection[str]) -> str:
    if part.withdrawn:
        return "every case of it was withdrawn"
    return next(
        (f"gate.gone names {name}" for name in (part.dataset, f"{part.dataset}/{part.concept}") if name in allowed), ""
    )


def _excused(part: Part, allowed: Collection[str], champion: str) -> RuleResult:
    subject = f"{part.dataset}/{part.concept}"
    text = f"{_was(subject, [part], champion)}: {_why_excused(part, allowed)}."
    return RuleResult(COVERAGE_RULE, None, None, True, text, subject, {"pairs": part.pairs})


def _blocks(subject: str, parts: Sequence[Part], champion: str) -> RuleResult:
    ours = sum(one.ours for one in parts)
    now = f": the candidate has {ours} others, none in common" if ours else ""
    text = (
        f"{_was(subject, parts, champion)}{now}. Measure it again, or, where that is meant, name it in gate.gone of "
        "params.yaml."
    )
    numbers = {"pairs": sum(one.pairs for one in parts), "ours": ours}
    return RuleResult(COVERAGE_RULE, None, None, False, text, subject, numbers)


def _was(subject: str, parts: Sequence[Part], champion: str) -> str:
    return f"{subject}: was measured for {champion} ({sum(one.pairs for one in parts)} pairs), is not any more"


def _read(path: Path) -> pa.Table:
    """Text rows of the model itself with a number, on concepts that are present."""
    keep = [("prompt", "=", "text"), ("model", "=", "after"), ("present", "=", True)]
    there = set(pq.read_schema(path).names)
    names = [*_KEYS, *(name for name in _NAMES if name in there)]
    table = pq.read_table(path, columns=[*names, "dice"], filters=keep)
    table = table.filter(pc.is_finite(table["dice"].cast(pa.float64()))).select(names)
    return table.cast(pa.schema([(name, pa.string()) for name in names]))


def _withdrawn(table: pa.Table, withdrawn: Mapping[str, Collection[str]]) -> pa.ChunkedArray | pa.Array:
    """For each row whether its case or group is withdrawn."""
    out = pa.array([False] * table.num_rows, pa.bool_())
    for dataset, names in withdrawn.items():
        wanted = pa.array(sorted(names), pa.string())
        for column in set(_NAMES) & set(table.column_names):
            found = pc.and_(pc.equal(table["dataset"], dataset), pc.is_in(table[column], wanted))
            out = pc.or_(out, found.combine_chunks() if isinstance(found, pa.ChunkedArray) else found)
    return out


def _pairs(evaluation: Mapping[str, Any]) -> Iterator[tuple[str, str, int]]:
    for dataset, entry in (evaluation.get("datasets") or {}).items():
        for concept, one in (entry.get("concepts") or {}).items():
            if one.get("pairs"):
                yield dataset, concept, int(one["pairs"])
