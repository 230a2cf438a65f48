"""Masks as run lengths in a CSV, as competitions publish them: the rule `RunLengths` says how to count."""

from __future__ import annotations

import csv
from collections import defaultdict
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from infra.errors import CaseError
from preprocessing.cards import LabelRule, RunLengths
from preprocessing.readers import decoding

_MAX_BYTES = 1 << 30
_MOST_CHARACTERS = 1 << 26  # of one mask; the module's own limit is 128 KiB
_NOTHING = ("", "-1")


@dataclass(frozen=True)
class Runs:
    """One row: its class in lower case, and `start length …` as text, empty where it says that there is nothing.

    The numbers are read with the picture, so that an odd row refuses one picture and no others.
    """

    name: str
    runs: str


def read_runs(path: Path, rule: LabelRule) -> dict[str, list[Runs]]:
    """File name of a picture -> its rows. Raises CaseError `unreadable` (a column is not there), `too_large`."""
    assert isinstance(rule, RunLengths)
    with decoding(path, "a table"):
        stat = path.stat()
    if stat.st_size > _MAX_BYTES:
        raise CaseError("too_large", expected=f"at most {_MAX_BYTES} bytes", found=f"{stat.st_size}")
    columns = (rule.image, rule.runs, *([rule.label] if rule.label else []))
    return _read(path, stat.st_size, stat.st_mtime_ns, stat.st_ino, columns, rule.ending)


def drawn(runs: str, rule: RunLengths, shape: tuple[int, int]) -> NDArray[np.bool_]:
    """The mask (height, width) of one row. Raises CaseError `unreadable`; `mask_size` for runs out of the picture."""
    with decoding(Path("row"), "run lengths"):
        numbers = np.array(runs.split(), dtype=np.int64)
        if len(numbers) % 2 or (numbers < 0).any():
            msg = f"expected pairs of a start and a length, none below 0, found {len(numbers)} numbers"
            raise ValueError(msg)
    starts, lengths = numbers[0::2], numbers[1::2]
    starts = np.cumsum(starts) + np.cumsum(lengths) - lengths if rule.counting == "relative" else starts - 1
    size = shape[0] * shape[1]
    if numbers.max(initial=0) > size or starts.min(initial=0) < 0 or (starts + lengths).max(initial=0) > size:
        raise CaseError(
            "mask_size",
            expected=f"runs in a picture of {shape[1]} x {shape[0]} pixels (width x height)",
            found=f"starts and lengths up to {numbers.max(initial=0)}, which leave its {size} pixels",
            fix="Find the picture that the mask was drawn on, or correct the card's `counting`",
        )
    # +1 where a run begins, -1 behind its end: runs may overlap
    edges = np.zeros(size + 1, dtype=np.int64)
    np.add.at(edges, starts, 1)
    np.add.at(edges, starts + lengths, -1)
    marked = np.cumsum(edges[:-1]) > 0
    return marked.reshape(shape[1], shape[0]).T if rule.order == "columns" else marked.reshape(shape)


@lru_cache(maxsize=2)
def _read(
    path: Path, size: int, mtime_ns: int, inode: int, columns: tuple[str, ...], ending: str
) -> dict[str, list[Runs]]:
    found: dict[str, list[Runs]] = defaultdict(list)
    csv.field_size_limit(_MOST_CHARACTERS)
    with decoding(path, "a table"), path.open(encoding="utf-8-sig", newline="") as handle:
        for row in csv.DictReader(handle, skipinitialspace=True):
            image, runs, *name = (row[column].strip() for column in columns)
            found[image + ending].append(Runs(name[0].lower() if name else "", "" if runs in _NOTHING else runs))
    return dict(found)
