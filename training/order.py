"""The global order of samples: computed from (seed, step), the same for any number of workers.

Position i of the order is drawn in three pure steps: which dataset (a shuffled schedule that mixes
datasets by temperature), how often that dataset was drawn before, and which of its samples comes
then (a new permutation each time the dataset is used up). A run that resumes at step s needs to know
s and nothing else.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from training.recipes import Recipe

SCHEDULE = 512
"""Positions a schedule block has; quotas are met within each block."""


class GlobalOrder:
    """Sample index for each global position.

    Args:
        sizes: number of samples of each dataset, in the order of the sample index.
        temperature: 1 draws datasets by size, 0 all alike.
        seed: of the run.
        visits: how often a sample may come on average in a run of `draws` positions; 0: as often as it comes.
        draws: positions of the whole run.
    """

    def __init__(self, sizes: list[int], temperature: float, seed: int, *, visits: float = 0, draws: int = 0) -> None:
        if not sizes or min(sizes) < 1:
            msg = f"an order needs datasets with at least one sample each, found sizes {sizes}"
            raise ValueError(msg)
        self._sizes = np.asarray(sizes, dtype=np.int64)
        self._starts = np.concatenate(([0], np.cumsum(self._sizes)[:-1]))
        self._seed = seed
        limit = visits / draws if visits and draws else np.inf
        most: NDArray[np.float64] = self._sizes.astype(np.float64) * limit
        self._quota = _largest_remainder(shares(self._sizes, temperature, most), SCHEDULE)

    @property
    def quota(self) -> list[int]:
        """Positions of each dataset in a schedule block."""
        return [int(count) for count in self._quota]

    def draw(self, position: int) -> tuple[int, int]:
        """(number of the dataset, how often it was drawn before) at a global position."""
        block, offset = divmod(position, SCHEDULE)
        datasets, occurrences = self._block(block)
        dataset = int(datasets[offset])
        return dataset, block * int(self._quota[dataset]) + int(occurrences[offset])

    def __getitem__(self, position: int) -> int:
        """Index into all samples (datasets one after the other) at a global position."""
        dataset, draw = self.draw(position)
        cycle, place = divmod(draw, int(self._sizes[dataset]))
        return int(self._starts[dataset] + self._permutation(dataset, cycle)[place])

    @lru_cache(maxsize=4)  # noqa: B019  one order lives as long as its run
    def _block(self, block: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        datasets = np.repeat(np.arange(self._sizes.size), self._quota)
        np.random.default_rng([self._seed, 1, block]).shuffle(datasets)
        occurrences = np.empty_like(datasets)
        for dataset in range(self._sizes.size):
            where = datasets == dataset
            occurrences[where] = np.arange(int(where.sum()))
        return datasets, occurrences

    @lru_cache(maxsize=256)  # noqa: B019
    def _permutation(self, dataset: int, cycle: int) -> NDArray[np.int64]:
        return np.random.default_rng([self._seed, 2, dataset, cycle]).permutation(int(self._sizes[dataset]))


def order_of(sizes: list[int], recipe: Recipe) -> GlobalOrder:
    """The order that a recipe asks for over datasets of these sizes."""
    return GlobalOrder(
        sizes,
        recipe.temperature,
        recipe.seed,
        visits=recipe.most_visits,
        draws=recipe.steps * recipe.global_batch,
    )


def shares(sizes: NDArray[np.int64], temperature: float, most: NDArray[np.float64]) -> NDArray[np.float64]:
    """Shares of the datasets that add up to 1: by size ** temperature, none above its `most` where that can be.

    What a dataset may not take goes to the others in their proportion. Where all together may take less than 1,
    the shares are in proportion to `most`.
    """
    if most.sum() <= 1:
        in_proportion: NDArray[np.float64] = most / most.sum()
        return in_proportion
    weights = sizes.astype(np.float64) ** temperature
    found: NDArray[np.float64] = np.zeros(sizes.size)
    free = np.ones(sizes.size, dtype=bool)
    while True:
        found[free] = weights[free] / weights[free].sum() * (1 - found[~free].sum())
        above = free & (found > most)
        if not above.any():
            return found
        found[above] = most[above]
        free &= ~above


def positions_of(step: int, global_batch: int, rank: int, world_size: int) -> range:
    """Global positions that a rank reads at a step; the ranks' ranges cover the step's batch once."""
    start = step * global_batch
    return range(start + rank * global_batch // world_size, start + (rank + 1) * global_batch // world_size)


def _largest_remainder(shares: NDArray[np.float64], total: int) -> NDArray[np.int64]:
    """Whole numbers in the given proportions that add up to `total`, each at least 1."""
    exact = shares * total
    quota = np.maximum(np.floor(exact), 1).astype(np.int64)
    rest = total - int(quota.sum())
    order = np.argsort(-(exact - np.floor(exact)), kind="stable")
    for index in range(abs(rest)):
        # taking back goes to the largest quota, so that none falls below 1
        place = int(order[index % order.size]) if rest > 0 else int(np.argmax(quota))
        quota[place] += 1 if rest > 0 else -1
    return quota
