"""The order of one dataset's samples when they are read from its shards: shuffled, and yet read in large pieces.

A cycle is one visit to every sample. Per cycle the shards are permuted; `open_shards` consecutive ones are a
span, whose blocks (`BLOCK_ROWS` rows of a shard, a row group as ingest writes them) are permuted; consecutive
blocks of about `window` samples are a window, whose samples are permuted. A sample therefore moves through its
whole window, a block through its span and a shard anywhere; whoever follows the order reads each block once and
needs `open_shards` shards (twice as many where a window spans two spans) and one window in memory.

Every permutation is drawn from a generator keyed by (seed, dataset, cycle, number of the piece): the place of
any draw is computed from the draw alone. What is held is a few numbers per block and the permutation of a window.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

_T = TypeVar("_T")
_Cycle: TypeAlias = tuple[NDArray[np.int32], NDArray[np.int64]]
BLOCK_ROWS = 64
OPEN_SHARDS = 4
_SHARDS, _BLOCKS, _SAMPLES = 4, 5, 6  # first words of the generators' keys; 1 to 3 are taken by order.py and stream.py

_KEPT = 3  # cycles and windows: the present one, one that threads ahead of it are in, one that is asked about


class ShardOrder:
    """Block and place within it of each draw from one dataset.

    Args:
        block_shard: number of the shard of each block, not decreasing.
        block_samples: samples in each block, at least 1.
        window: samples that are shuffled with one another, about.
        seed: of the run.
        dataset: number of the dataset, so that two of one size are shuffled apart.
    """

    def __init__(
        self,
        block_shard: NDArray[np.int32],
        block_samples: NDArray[np.int32],
        *,
        window: int,
        seed: int,
        dataset: int,
        open_shards: int = OPEN_SHARDS,
    ) -> None:
        self._shard, self._samples = block_shard, block_samples
        self._window, self._seed, self._dataset, self._open = max(1, window), seed, dataset, open_shards
        self._size = int(block_samples.sum())
        self._shards = int(block_shard[-1]) + 1
        self._kept: dict[str, dict[tuple[int, ...], Any]] = {}

    def __len__(self) -> int:
        """Samples of a cycle."""
        return self._size

    def place(self, draw: int) -> tuple[int, int]:
        """(block, number of the sample within it) of a draw."""
        cycle, number = divmod(draw, self._size)
        blocks, starts = self._cycle(cycle)
        window, first, last = self._window_of(starts, number)
        begin = int(starts[first])
        count = int(starts[last]) - begin
        moved = begin + int(self._within(cycle, window, count)[number - begin])
        found = int(np.searchsorted(starts, moved, side="right")) - 1
        return int(blocks[found]), moved - int(starts[found])

    def shards_from(self, draw: int) -> list[int]:
        """Numbers of the shards that a reader at a draw needs, and of those that come after them."""
        cycle, number = divmod(draw, self._size)
        blocks, starts = self._cycle(cycle)
        _, first, last = self._window_of(starts, number)
        shards = self._permuted(cycle)
        rank = np.argsort(shards)  # where each shard comes in this cycle
        spans = rank[self._shard[blocks[first:last]]] // self._open
        begin, end = int(spans.min()) * self._open, (int(spans.max()) + 2) * self._open
        found = [int(shard) for shard in shards[begin:end]]
        if end > self._shards:
            found += [int(shard) for shard in self._permuted(cycle + 1)[: self._open] if int(shard) not in found]
        return found

    def _window_of(self, starts: NDArray[np.int64], number: int) -> tuple[int, int, int]:
        """(number of the window, its first block, the block after its last), blocks in the cycle's order."""
        block = int(np.searchsorted(starts, number, side="right")) - 1
        window = int(starts[block]) // self._window
        first = int(np.searchsorted(starts, window * self._window, side="left"))
        # the last entry of `starts` is the end of the cycle and no block
        last = min(int(np.searchsorted(starts, (window + 1) * self._window, side="left")), starts.size - 1)
        return window, first, last

    def _cycle(self, cycle: int) -> _Cycle:
        """Blocks in the order of a cycle, and the number of the first sample of each, with the end of the cycle."""
        return self._keep("cycle", (cycle,), lambda: self._make_cycle(cycle))

    def _make_cycle(self, cycle: int) -> _Cycle:
        rank = np.argsort(self._permuted(cycle))
        span = rank[self._shard] // self._open
        by_span = np.argsort(span, kind="stable")
        bounds = np.flatnonzero(np.diff(span[by_span])) + 1
        parts = []
        for number, part in enumerate(np.split(by_span, bounds)):
            parts.append(np.random.default_rng([self._seed, _BLOCKS, self._dataset, cycle, number]).permutation(part))
        blocks = np.concatenate(parts).astype(np.int32)
        starts = np.concatenate(([0], np.cumsum(self._samples[blocks], dtype=np.int64)))
        return blocks, starts

    def _permuted(self, cycle: int) -> NDArray[np.int64]:
        """Numbers of the shards in the order of a cycle."""
        key = [self._seed, _SHARDS, self._dataset, cycle]
        return self._keep("shards", (cycle,), lambda: np.random.default_rng(key).permutation(self._shards))

    def _within(self, cycle: int, window: int, count: int) -> NDArray[np.int64]:
        """Where each draw of a window goes in it."""
        key = [self._seed, _SAMPLES, self._dataset, cycle, window]
        return self._keep("samples", (cycle, window), lambda: np.random.default_rng(key).permutation(count))

    def _keep(self, name: str, key: tuple[int, ...], make: Callable[[], _T]) -> _T:
        """A value by its key; the last `_KEPT` keys are held. Threads may make the same value twice, no more."""
        held = self._kept.setdefault(name, {})
        found: _T | None = held.get(key)
        if found is None:
            found = make()
            held[key] = found
            for old in sorted(held)[:-_KEPT]:
                held.pop(old, None)
        return found
