"""Rows of an evaluation to aggregates with intervals: by level, paired between models, by group.

A dataset's figure is the mean over its pairs (sample, concept); a figure over datasets is the mean of theirs, so that
each counts once. Intervals draw groups within each dataset (`infra.statistics`). External sets stand apart.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from infra.statistics import Values, interval, mean_replicates, over_strata

Row = Mapping[str, Any]
Key = tuple[Any, ...]

METRICS = ("dice", "iou", "dice_instances", "dice_top1")
LEVELS = ("all", "dataset", "modality", "concept")
AGAINST = {"before": "start", "champion": "champion"}
"""Models that "after" is compared with, and what the comparison is called."""

GROUPS_SCHEMA = pa.schema(
    [
        pa.field("dataset", pa.string()),
        pa.field("modality", pa.string()),
        pa.field("external", pa.bool_()),
        *(pa.field(name, pa.string()) for name in ("group_id", "concept", "prompt", "model")),
        pa.field("pairs", pa.int64()),
        *(pa.field(name, pa.float64()) for name in METRICS),
        pa.field("absent_pairs", pa.int64()),
        pa.field("false_alarms", pa.int64()),
    ]
)


class Strata:
    """Figures of datasets that are put together by level: values, draws, groups and pairs of each."""

    def __init__(self, parts: Mapping[str, Sequence[Row]], values: Callable[[Row], Sequence[float]]) -> None:
        """`parts` are the rows of each dataset, `values` the figures of a row, whose means are wanted."""
        self._parts: list[tuple[float | Values, Values]] = []
        self.groups = self.pairs = 0
        for dataset, part in parts.items():
            groups, columns = [row["group_id"] for row in part], np.array([values(row) for row in part])
            self._parts.append((columns.mean(axis=0), mean_replicates(groups, columns, dataset)))
            self.groups += len(set(groups))
            self.pairs += len(part)

    @property
    def values(self) -> list[float]:
        """Means over the datasets."""
        return [float(value) for value in np.mean([np.asarray(value) for value, _ in self._parts], axis=0)]

    @property
    def intervals(self) -> list[list[float] | None]:
        """95 % intervals of `values`."""
        draws = over_strata(self._parts)
        if draws.ndim == 1:  # nothing to draw from
            return [None] * len(self.values)
        return [interval(column) for column in draws.T]


def levels_of(rows: Iterable[Row], external: Collection[str]) -> Iterator[tuple[str, str, bool, dict[str, list[Row]]]]:
    """(level, name, external, {dataset: rows}) for every figure that is put together, in a fixed order."""
    cells: dict[tuple[int, str, bool], dict[str, list[Row]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        outside = row["dataset"] in external
        for place, name in enumerate(("", row["dataset"], row["modality"], row["concept"])):
            cells[place, name, outside][row["dataset"]].append(row)
    for place, name, outside in sorted(cells):
        yield LEVELS[place], name, outside, dict(sorted(cells[place, name, outside].items()))


def aggregates(rows: Sequence[Row], external: Collection[str]) -> list[dict[str, Any]]:
    """Every metric of present pairs by level, model and prompt."""
    found = []
    kinds = sorted({(row["model"], row["prompt"]) for row in rows})
    for model, prompt in kinds:
        chosen = [row for row in rows if row["model"] == model and row["prompt"] == prompt and row["present"]]
        for level, name, outside, parts in levels_of(chosen, external):
            strata = Strata(parts, lambda row: [row[metric] for metric in METRICS])
            for metric, value, bounds in zip(METRICS, strata.values, strata.intervals, strict=True):
                found.append(
                    {
                        "level": level,
                        "name": name,
                        "external": outside,
                        "model": model,
                        "prompt": prompt,
                        "metric": metric,
                        "value": value,
                        "interval": bounds,
                        "groups": strata.groups,
                        "pairs": strata.pairs,
                    }
                )
    return found


def paired(rows: Sequence[Row], external: Collection[str]) -> list[dict[str, Any]]:
    """Dice with text prompts of "after" against each other model, over the pairs that both were asked for."""
    text = [row for row in rows if row["prompt"] == "text" and row["present"]]
    ours = {_pair(row): row for row in text if row["model"] == "after"}
    found = []
    for other, against in AGAINST.items():
        both = [
            {**ours[_pair(row)], "other": row["dice"]} for row in text if row["model"] == other and _pair(row) in ours
        ]
        both.sort(key=_pair)
        for level, name, outside, parts in levels_of(both, external):
            strata = Strata(parts, lambda row: [row["other"], row["dice"], row["dice"] - row["other"]])
            before, after, _ = strata.values
            found.append(
                {
                    "against": against,
                    "level": level,
                    "name": name,
                    "external": outside,
                    "metric": "dice_text",
                    "before": before,
                    "after": after,
                    "difference": after - before,
                    "interval": strata.intervals[2],
                    "groups": strata.groups,
                    "pairs": strata.pairs,
                }
            )
    return found


def group_table(rows: Sequence[Row], external: Collection[str]) -> pa.Table:
    """A row a group, concept, prompt and model (GROUPS_SCHEMA)."""
    cells: dict[Key, list[Row]] = defaultdict(list)
    for row in rows:
        cells[row["dataset"], row["modality"], row["group_id"], row["concept"], row["prompt"], row["model"]].append(row)
    table = []
    for (dataset, modality, group, concept, prompt, model), part in sorted(cells.items()):
        there = [row for row in part if row["present"]]
        table.append(
            {
                "dataset": dataset,
                "modality": modality,
                "external": dataset in external,
                "group_id": group,
                "concept": concept,
                "prompt": prompt,
                "model": model,
                "pairs": len(there),
                **{name: float(np.mean([row[name] for row in there])) if there else None for name in METRICS},
                "absent_pairs": len(part) - len(there),
                "false_alarms": sum(row["predicted_px"] > 0 for row in part if not row["present"]),
            }
        )
    return pa.Table.from_pylist(table, schema=GROUPS_SCHEMA)


def _pair(row: Row) -> Key:
    return row["dataset"], row["sample_id"], row["concept"]
