"""Bytes of tensors: alive at this moment, most at once, and kept for the backward pass.

Counted by storage, so that views count once, on real and on fake tensors alike. What is alive is what any
operator's output still refers to; a kernel's own workspace is not seen.
"""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


@dataclass
class Kept:
    """What a forward pass keeps for the backward pass, in bytes."""

    activations: int = 0
    weight_copies: int = 0  # weights in another precision


class LiveBytes(TorchDispatchMode):
    """Counts the storages that operators make while the mode is on."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        # a model's own tensors are alive all the time and count elsewhere
        self._weights = {_key(tensor) for tensor in (*model.parameters(), *model.buffers())}
        self._alive: dict[int, tuple[int, Any]] = {}
        self._copies: set[int] = set()
        self.now = 0
        self.peak = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor):
                self._see(tensor)
        if func is torch.ops.aten._to_copy.default and _key(args[0]) in self._weights:
            self._copies.add(_key(result))
        return result

    def _see(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in self._weights or key in self._alive:
            return
        size = storage.nbytes()
        self._alive[key] = (size, weakref.ref(storage, lambda _: self._gone(key)))
        self.now += size
        self.peak = max(self.peak, self.now)

    def _gone(self, key: int) -> None:
        size, _ = self._alive.pop(key)
        self._copies.discard(key)
        self.now -= size

    @contextlib.contextmanager
    def keeping(self) -> Iterator[Kept]:
        """Count what autograd saves inside of the block; the figures are complete at its end."""
        kept = Kept()
        seen: set[int] = set()

        def pack(tensor: Tensor) -> Tensor:
            key = _key(tensor)
            if key not in self._weights and key not in seen:
                seen.add(key)  # the graph holds the tensor, so the storage's address is not used again
                size = tensor.untyped_storage().nbytes()
                if key in self._copies:
                    kept.weight_copies += size
                else:
                    kept.activations += size
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            yield kept


@contextlib.contextmanager
def keep_watch(model: nn.Module) -> Iterator[LiveBytes]:
    """Count storages inside of the block, those of the model's own tensors apart."""
    watch = LiveBytes(model)
    with watch:
        yield watch


def _key(tensor: Tensor) -> int:
    key: int = tensor.untyped_storage()._cdata
    return key
