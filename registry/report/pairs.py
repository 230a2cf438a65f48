"""The rows of `evaluation.parquet` as columns: a pair is one image and one concept that was asked for."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from registry.report.evaluation import AFTER, BEFORE


@dataclass(frozen=True)
class Pairs:
    """Columns of equal length, one entry a pair: text prompts of one model."""

    dataset: NDArray[Any]
    present: NDArray[np.bool_]
    presence: NDArray[np.float64]
    dice: NDArray[np.float64]
    truth_px: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.dataset)

    def where(self, kept: NDArray[np.bool_]) -> Pairs:
        """The pairs that `kept` (pairs,) marks."""
        return Pairs(**{one.name: getattr(self, one.name)[kept] for one in fields(self)})

    def of(self, datasets: Collection[str]) -> Pairs:
        """The pairs of some datasets."""
        return self.where(np.isin(self.dataset, sorted(datasets)))


def read_pairs(evaluation: Path) -> dict[str, Pairs]:
    """Pairs asked by text, by model ("before", "after"); none where the evaluation has no such file or column."""
    file = evaluation / "evaluation.parquet"
    names = [one.name for one in fields(Pairs)]
    if not file.is_file() or not {*names, "prompt", "model"} <= set(pq.read_schema(file).names):
        return {}
    table = pq.read_table(file, columns=[*names, "model"], filters=[("prompt", "=", "text")])
    columns = {name: table[name].to_numpy(zero_copy_only=False) for name in names}
    columns["present"] = columns["present"].astype(bool)
    model = table["model"].to_numpy(zero_copy_only=False)
    everything = Pairs(**columns)
    return {name: everything.where(model == name) for name in (BEFORE, AFTER) if (model == name).any()}
