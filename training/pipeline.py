"""Batches made ahead of their use, in order, by threads.

Image decoders, zstd and torch release the GIL, so threads decode in parallel without the memory of a process each.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

S = TypeVar("S")
B = TypeVar("B")


def in_order(
    steps: Iterable[Iterable[int]],
    make: Callable[[int], S],
    collate: Callable[[list[S]], B],
    *,
    threads: int,
    ahead: int,
) -> Iterator[B]:
    """Yield `collate([make(position), …])` of every step, in their order.

    Args:
        steps: the positions of each batch; may be endless.
        make: one sample; a function of the position alone, called by several threads at a time.
        collate: samples to a batch; called by one thread at a time.
        threads: that make samples; 0: the caller does it, when it asks for a batch.
        ahead: batches that are begun before they are asked for, at least 1. No more are held.

    An error of `make` or `collate` is raised where its batch would have come.
    """
    if threads < 1:
        for positions in steps:
            yield collate([make(position) for position in positions])
        return
    makers = ThreadPoolExecutor(threads, thread_name_prefix="decode")
    joiner = ThreadPoolExecutor(1, thread_name_prefix="collate")

    def begin(positions: Iterable[int]) -> Future[B]:
        parts = [makers.submit(make, position) for position in positions]
        return joiner.submit(lambda: collate([part.result() for part in parts]))

    waiting: deque[Future[B]] = deque()
    try:
        for positions in steps:
            waiting.append(begin(positions))
            if len(waiting) > max(1, ahead):
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        # parts that never started are cancelled; one that waits for such a part would wait for ever without this
        makers.shutdown(wait=False, cancel_futures=True)
        joiner.shutdown(wait=False, cancel_futures=True)
