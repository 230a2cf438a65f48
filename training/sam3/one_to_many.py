"""The one-to-many branch of training: every query a second time, matched to objects that other queries have too.

The second set of queries starts from the same embeddings and goes through the same layers, but not through
self-attention, where queries learn to leave an object to one of them (the official code's "DAC"). It teaches the
layers with several queries an object, and is dropped in serving.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers.masking_utils import create_bidirectional_mask
from transformers.models.sam3.modeling_sam3 import (
    Sam3Attention,
    Sam3DetrDecoder,
    Sam3DETRDecoderOutput,
    inverse_sigmoid,
)


class SelfAttention(Sam3Attention):
    """transformers' attention, which may leave the last tokens out: they neither look nor are looked at."""

    def forward(
        self, query: Tensor, key: Tensor, value: Tensor, attending: int | None = None, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """As transformers'; `attending`: number of first tokens that take part, the others get zeros."""
        if attending is None:
            whole: tuple[Tensor, Tensor] = super().forward(query, key, value, **kwargs)
            return whole
        result, weights = super().forward(query[:, :attending], key[:, :attending], value[:, :attending], **kwargs)
        return F.pad(result, (0, 0, 0, query.shape[1] - attending)), weights


def decode_twice(
    decoder: Sam3DetrDecoder,
    *,
    vision_features: Tensor,
    text_features: Tensor,
    vision_pos_encoding: Tensor,
    text_mask: Tensor,
    spatial_shapes: Tensor,
) -> Sam3DETRDecoderOutput:
    """transformers' decoder with every query twice: the one-to-one half first, then the one-to-many half.

    Args:
        decoder: its layers' `self_attn` must be `SelfAttention`.
        vision_features: (prompts, height · width, channels), from the encoder.
        text_features: (prompts, tokens, channels).
        vision_pos_encoding: as `vision_features`.
        text_mask: (prompts, tokens) bool, True = a real token.
        spatial_shapes: (1, 2) height and width of the features.

    Returns:
        As transformers', with 2 · queries in `intermediate_hidden_states` and `reference_boxes`.
    """
    prompts, queries = len(vision_features), decoder.config.num_queries
    embeddings = decoder.query_embed.weight.repeat(2, 1).expand(prompts, -1, -1)
    boxes = decoder.reference_points.weight.sigmoid().repeat(2, 1).expand(prompts, -1, -1)
    hidden = torch.cat([decoder.presence_token.weight.expand(prompts, -1, -1), embeddings], dim=1)
    mask = create_bidirectional_mask(
        config=decoder.config, inputs_embeds=hidden, attention_mask=text_mask, encoder_hidden_states=text_features
    )
    states, references, presences = [], [], []
    for layer in decoder.layers:
        references.append(boxes)
        bias = decoder._get_rpb_matrix(boxes, (spatial_shapes[0, 0], spatial_shapes[0, 1]))
        hidden = layer(
            hidden,
            query_pos=decoder.ref_point_head(decoder.position_encoding.encode_boxes(boxes)),
            text_features=text_features,
            vision_features=vision_features,
            vision_pos_encoding=vision_pos_encoding,
            text_cross_attn_mask=mask,
            vision_cross_attn_mask=F.pad(bias, (0, 0, 1, 0)),  # the presence token has no box, and no bias
            attending=1 + queries,
        )
        normed = decoder.output_layer_norm(hidden[:, 1:])
        refined = (decoder.box_head(normed) + inverse_sigmoid(boxes)).sigmoid()
        boxes = refined.detach()
        states.append(normed)
        presence = decoder.presence_head(decoder.presence_layer_norm(hidden[:, :1])).squeeze(-1)
        most = decoder.clamp_presence_logit_max_val
        presences.append(presence.clamp(min=-most, max=most))
    return Sam3DETRDecoderOutput(
        intermediate_hidden_states=torch.stack(states),
        reference_boxes=torch.stack(references),
        presence_logits=torch.stack(presences),
    )
