"""Layers of transformers' SAM3 that we run otherwise: same weights, same numbers.

- DETR, geometry and mask layers can be recomputed in the backward pass (`activation_checkpointing.py`), which
  transformers offers for the vision and text layers alone.
- The decoder's box bias knows its grid as Python integers, which transformers reads out of a tensor: 19 graph
  breaks under torch.compile. Between `_get_rpb_matrix` and the layer it travels as its two summands, (height +
  width) numbers a query in place of height × width, so that a recomputed layer keeps nothing of that size.
- The mask decoder spreads the images' feature levels over the prompts by itself, so that a recomputed one keeps
  them once an image and not once a prompt.
- The position encoding is made anew and for one image: transformers keeps the last ones, for every image of a batch,
  for the life of the process (a third of a GiB at full size and batch 4), fake tensors of a memory plan included.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.models.sam3.configuration_sam3 import Sam3Config, Sam3DETRDecoderConfig
from transformers.models.sam3.modeling_sam3 import (
    Sam3DetrDecoder,
    Sam3DetrDecoderLayer,
    Sam3DetrEncoderLayer,
    Sam3GeometryEncoderLayer,
    Sam3MaskDecoder,
    Sam3MaskDecoderOutput,
    Sam3SinePositionEmbedding,
)

from training.sam3.boxes import cxcywh_to_xyxy
from training.sam3.mask_inference import mask_logits

Grid = tuple[int, int]
_BIAS_SCALE = 8  # SAM3's box bias is logarithmic in eighths of the image


def grid_of(config: Sam3Config) -> Grid:
    """Rows and columns of patches of the image that a configuration is made for."""
    vision = config.vision_config.backbone_config
    size, patch = (value if isinstance(value, list | tuple) else (value, value) for value in _sizes(vision))
    return int(size[0]) // int(patch[0]), int(size[1]) // int(patch[1])


def _sizes(vision: Any) -> tuple[Any, Any]:
    return vision.image_size, vision.patch_size


class SinePosition(Sam3SinePositionEmbedding):
    """transformers' position encoding of a feature level, equal for all images, without its cache."""

    def forward(
        self, shape: torch.Size, device: torch.device, dtype: torch.dtype, mask: Tensor | None = None
    ) -> Tensor:
        """Encoding (images, channels, height, width) of a level of that shape; the images share its memory."""
        build = Sam3SinePositionEmbedding.build_sine_position_embedding.__wrapped__
        one: Tensor = build(
            torch.Size((1, *shape[1:])),
            device,
            dtype,
            self.num_position_features,
            self.normalize,
            self.scale,
            self.temperature,
            mask,
        )
        return one.expand(shape[0], -1, -1, -1)


class GeometryLayer(GradientCheckpointingLayer, Sam3GeometryEncoderLayer):
    """transformers' geometry encoder layer, recomputable."""


class DetrEncoderLayer(GradientCheckpointingLayer, Sam3DetrEncoderLayer):
    """transformers' DETR encoder layer, recomputable."""


class DetrDecoderLayer(GradientCheckpointingLayer, Sam3DetrDecoderLayer):
    """transformers' DETR decoder layer, recomputable; it puts the two summands of the box bias together."""

    grid: Grid

    def forward(self, hidden_states: Tensor, vision_cross_attn_mask: Tensor | None = None, **kwargs: Any) -> Tensor:
        """As transformers' layer, with `vision_cross_attn_mask` (prompts, heads, 1 + queries, height + width)."""
        if vision_cross_attn_mask is not None:
            vision_cross_attn_mask = _whole_bias(vision_cross_attn_mask, self.grid)
        hidden: Tensor = super().forward(hidden_states, vision_cross_attn_mask=vision_cross_attn_mask, **kwargs)
        return hidden


def _whole_bias(summands: Tensor, grid: Grid) -> Tensor:
    """(prompts, heads, 1 + queries, height + width) to (prompts, heads, 1 + queries, height · width).

    The first row is the presence token's, which has no box and gets no bias.
    """
    by_query = summands[:, :, 1:].permute(0, 2, 3, 1).contiguous()
    rows, columns = by_query.split(list(grid), dim=2)  # type: ignore[no-untyped-call]
    bias = (rows.unsqueeze(3) + columns.unsqueeze(2)).flatten(2, 3)
    return F.pad(bias.permute(0, 3, 1, 2).contiguous(), (0, 0, 1, 0))


class DetrDecoder(Sam3DetrDecoder):
    """transformers' DETR decoder on a grid whose size is known."""

    def __init__(self, config: Sam3DETRDecoderConfig, grid: Grid) -> None:
        super().__init__(config)
        self.grid = grid
        for layer in self.layers:
            layer.__class__ = DetrDecoderLayer
            layer.grid = grid

    def _get_rpb_matrix(self, reference_boxes: Tensor, spatial_shape: tuple[Tensor, Tensor]) -> Tensor:
        """Summands of the box bias (prompts, heads, queries, height + width); the layer adds them up.

        Args:
            reference_boxes: (prompts, queries, 4), cxcywh, normalised.
            spatial_shape: not looked at: its tensors would have to be read back.
        """
        boxes = cxcywh_to_xyxy(reference_boxes)
        height, width = self.grid
        rows = torch.arange(height, device=boxes.device, dtype=boxes.dtype) / height
        columns = torch.arange(width, device=boxes.device, dtype=boxes.dtype) / width
        from_y = rows.view(1, 1, -1, 1) - boxes[:, :, None, 1:4:2]
        from_x = columns.view(1, 1, -1, 1) - boxes[:, :, None, 0:3:2]
        bias_y = self.box_rpb_embed_y(_logarithmic(from_y))
        bias_x = self.box_rpb_embed_x(_logarithmic(from_x))
        return torch.cat([bias_y, bias_x], dim=2).permute(0, 3, 1, 2)


def _logarithmic(distance: Tensor) -> Tensor:
    scaled = distance * _BIAS_SCALE
    return torch.sign(scaled) * torch.log2(torch.abs(scaled) + 1.0) / math.log2(_BIAS_SCALE)


class MaskDecoder(GradientCheckpointingLayer, Sam3MaskDecoder):
    """transformers' mask decoder, recomputable as a whole, on features of images that prompts share."""

    def forward(
        self,
        decoder_queries: Tensor,
        backbone_features: list[Tensor],
        encoder_hidden_states: Tensor,
        prompt_features: Tensor | None = None,
        prompt_mask: Tensor | None = None,
        image_of_prompt: Tensor | None = None,
        **kwargs: Any,
    ) -> Any:
        """As transformers', but with `image_of_prompt` (prompts,) the features are those of the images."""
        if image_of_prompt is not None and prompt_features is not None and not torch.is_grad_enabled():
            masks, semantic = mask_logits(
                self,
                decoder_queries,
                backbone_features,
                encoder_hidden_states,
                prompt_features,
                prompt_mask,
                image_of_prompt,
            )
            return Sam3MaskDecoderOutput(pred_masks=masks, semantic_seg=semantic)
        if image_of_prompt is not None:
            # of the coarsest level only the size is used: the encoder's output takes its place
            *finer, coarsest = backbone_features
            backbone_features = [level.index_select(0, image_of_prompt) for level in finer]
            backbone_features.append(coarsest[:1].expand(len(image_of_prompt), -1, -1, -1))
        return super().forward(
            decoder_queries=decoder_queries,
            backbone_features=backbone_features,
            encoder_hidden_states=encoder_hidden_states,
            prompt_features=prompt_features,
            prompt_mask=prompt_mask,
            **kwargs,
        )
