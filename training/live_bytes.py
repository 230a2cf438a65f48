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


class LiveBytes(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the storages that operators make while the mode is on."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
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
        """Count what autograd has saved at the end of the block and not let go of again (dropped outputs are)."""
        kept = Kept()
        saved: dict[int, _Saved] = {}

        def pack(tensor: Tensor) -> _Held:
            key = _key(tensor)
            if key not in self._weights:
                entry = saved.setdefault(key, _Saved(tensor.untyped_storage().nbytes(), key in self._copies))
                entry.times += 1
                held = _Held(tensor)
                weakref.finalize(held, let_go, key)
                return held
            return _Held(tensor)

        def let_go(key: int) -> None:
            saved[key].times -= 1
            if not saved[key].times:
                del saved[key]

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda held: held.tensor):
            yield kept
        kept.activations = sum(entry.size for entry in saved.values() if not entry.is_copy)
        kept.weight_copies = sum(entry.size for entry in saved.values() if entry.is_copy)


class _Held:
    """A saved tensor; it dies with the graph node that saved it."""

    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor


@dataclass
class _Saved:
    size: int
    is_copy: bool
    times: int = 0


@contextlib.contextmanager
def keep_watch(model: nn.Module) -> Iterator[LiveBytes]:
    """Count storages inside of the block, those of the model's own tensors apart."""
    watch = LiveBytes(model)
    with watch:
        yield watch


def _key(tensor: Tensor) -> int:
    key: int = tensor.untyped_storage()._cdata
    return key
