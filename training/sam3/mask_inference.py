"""SAM3's mask decoder without gradients, for many prompts of an image: the same sums, fewer arrays.

What evaluation and serving pay for each further prompt is mostly memory: maps at the finest level, several times over.
Here a level is added in place and never copied for a prompt; a projection that is linear (1 x 1) and followed by a dot
product is taken with the queries in place of the pixels, (W e) · q = e · (Wᵀ q), and the semantic map is one query
more. Sums come in another order, so that logits differ in their last digits from those of the path with gradients.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers.masking_utils import create_bidirectional_mask


def mask_logits(
    decoder: Any,
    queries: Tensor,
    levels: list[Tensor],
    encoded: Tensor,
    prompt: Tensor,
    prompt_mask: Tensor | None,
    image_of_prompt: Tensor,
) -> tuple[Tensor, Tensor]:
    """Logits of query masks (prompts, queries, height, width) and of the semantic map (prompts, 1, height, width).

    Args:
        decoder: a `Sam3MaskDecoder` (its weights).
        queries: (prompts, queries, channels) of the last decoder layer.
        levels: features of the images, fine to coarse, each (images, channels, height, width).
        encoded: (prompts, tokens, channels) of the DETR encoder.
        prompt: (prompts, tokens, channels) text and boxes.
        prompt_mask: (prompts, tokens) bool, True = a real token.
        image_of_prompt: (prompts,) index into the images.
    """
    *finer, coarsest = levels
    coarse = _asked(decoder, encoded, prompt, prompt_mask)[:, : coarsest.shape[-2] * coarsest.shape[-1]]
    coarse = coarse.transpose(1, 2).reshape(len(coarse), -1, *coarsest.shape[-2:])
    wanted = decoder.mask_embedder(queries)
    instance, semantic = decoder.instance_projection, decoder.semantic_projection
    rows = torch.cat(
        [wanted @ instance.weight.flatten(1), semantic.weight.flatten(1).expand(len(wanted), 1, -1)], dim=1
    )
    offsets = torch.cat([wanted @ instance.bias, semantic.bias.expand(len(wanted), 1)], dim=1)
    # on a CPU one prompt's maps stay in its cache; other devices want as much work at a time as there is
    at_once = 1 if encoded.device.type == "cpu" else len(wanted)
    found = []
    for part in torch.split(torch.arange(len(wanted), device=image_of_prompt.device), at_once):
        pixels = _pixels(decoder.pixel_decoder, [level[image_of_prompt[part]] for level in finer], coarse[part])
        found.append(torch.baddbmm(offsets[part].unsqueeze(2), rows[part], pixels.flatten(2)))
    logits = torch.cat(found).reshape(len(wanted), -1, *finer[0].shape[-2:])
    return logits[:, :-1], logits[:, -1:]


def _asked(decoder: Any, encoded: Tensor, prompt: Tensor, prompt_mask: Tensor | None) -> Tensor:
    """The encoder's output after it has looked at the prompt."""
    normed = decoder.prompt_cross_attn_norm(encoded)
    mask = None
    if prompt_mask is not None:
        mask = create_bidirectional_mask(
            config=decoder.config,
            inputs_embeds=normed,
            encoder_hidden_states=prompt,
            attention_mask=prompt_mask,
        )
    looked, _ = decoder.prompt_cross_attn(query=normed, key=prompt, value=prompt, attention_mask=mask)
    result: Tensor = encoded + looked
    return result


def _pixels(decoder: Any, finer: list[Tensor], coarse: Tensor) -> Tensor:
    """Pixel embeddings (prompts, channels, height, width) of the finest level."""
    pixels = coarse
    for convolution, norm, level in zip(decoder.conv_layers, decoder.norms, reversed(finer), strict=False):
        pixels = F.interpolate(pixels, size=level.shape[-2:], mode="nearest")
        pixels = norm(convolution(pixels.add_(level))).relu_()
    return pixels
