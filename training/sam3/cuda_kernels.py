"""The operators that CUDA would run, for planning on a machine without CUDA.

torch decides by device which attention kernel runs and which operators autocast lifts to fp32, and these decide what
is kept for the backward pass. Under this mode, CPU (fake) tensors take CUDA's way: FlashAttention where there is no
mask and the precision is low, the memory-efficient kernel otherwise, layer and group norm in fp32.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

_MASK_ALIGNMENT = 16  # the memory-efficient kernel reads a mask in rows of so many numbers


class CudaKernels(TorchFunctionMode):
    """Only for fake tensors: the kernels themselves are not there."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if func is F.scaled_dot_product_attention:
            return _attention(*args, **kwargs)
        if func in (F.layer_norm, F.group_norm) and torch.is_autocast_enabled("cpu"):
            args = [value.float() if isinstance(value, Tensor) else value for value in args]
            kwargs = {name: value.float() if isinstance(value, Tensor) else value for name, value in kwargs.items()}
        return func(*args, **kwargs)


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
