"""The operators that CUDA would run, for planning on a machine without CUDA.

torch decides by device which attention kernel runs and which operators autocast lifts to fp32, and these decide what
is kept for the backward pass. In the block of `cuda_kernels`, CPU (fake) tensors take CUDA's way: FlashAttention
where there is no mask and the precision is low, the memory-efficient kernel otherwise, layer and group norm in fp32.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

_MASK_ALIGNMENT = 16  # the memory-efficient kernel reads a mask in rows of so many numbers


@contextlib.contextmanager
def cuda_kernels() -> Iterator[None]:
    """Inside of the block, fake CPU tensors take CUDA's way; real ones cannot, for the kernels are not there.

    The functions themselves are replaced: a TorchFunctionMode is off while the backward pass recomputes a layer.
    """
    plain = {name: getattr(F, name) for name in ("scaled_dot_product_attention", "layer_norm", "group_norm")}
    F.scaled_dot_product_attention = _attention
    F.layer_norm, F.group_norm = _lifted(F.layer_norm), _lifted(F.group_norm)
    try:
        yield
    finally:
        for name, function in plain.items():
            setattr(F, name, function)


def _lifted(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """`function` in fp32 under autocast, as CUDA's list of operators has it."""

    def lift(*args: Any, **kwargs: Any) -> Tensor:
        if torch.is_autocast_enabled("cpu"):
            args = tuple(value.float() if isinstance(value, Tensor) else value for value in args)
            kwargs = {name: value.float() if isinstance(value, Tensor) else value for name, value in kwargs.items()}
        return function(*args, **kwargs)

    return lift


def _attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """torch's scaled_dot_product_attention as its CUDA dispatch would have it."""
    if torch.is_autocast_enabled("cpu"):
        dtype = torch.get_autocast_dtype("cpu")
        query, key, value = query.to(dtype), key.to(dtype), value.to(dtype)
    if attn_mask is None and query.dtype in (torch.bfloat16, torch.float16):
        out: Tensor = torch.ops.aten._scaled_dot_product_flash_attention(
            query, key, value, dropout_p, is_causal, scale=scale
        )[0]
        return out
    bias = None
    if attn_mask is not None:
        bias = attn_mask
        if bias.dtype == torch.bool:
            bias = torch.zeros_like(bias, dtype=query.dtype).masked_fill(~bias, float("-inf"))
        bias = bias.to(query.dtype)
        missing = -bias.shape[-1] % _MASK_ALIGNMENT
        if missing:
            bias = F.pad(bias, (0, missing))[..., : bias.shape[-1]]
        bias = bias.expand(query.shape[0], query.shape[1], query.shape[2], key.shape[2])
    needs_lse = torch.is_grad_enabled()
    found: Tensor = torch.ops.aten._scaled_dot_product_efficient_attention(
        query, key, value, bias, needs_lse, dropout_p, is_causal, scale=scale
    )[0]
    return found
