"""Initialisation for training SAM3 from nothing.

transformers' default (normal, 0.02 everywhere) never learns; what is done here is DETR's and SAM3's
own: Xavier and Kaiming weights, unit-normal queries and presence token, reference points spread over
the image, a box head that starts as the identity, and scores and maps that start rare.
"""

from __future__ import annotations

import math

import torch
from torch import nn

from training.sam3.model import PromptableSam3

RARE = -math.log((1 - 0.1) / 0.1)
"""Logit of a prior of 0.1 (Lin et al., focal loss, arXiv:1708.02002)."""


def initialise(model: PromptableSam3, seed: int) -> None:
    """Set every parameter of `model`, repeatably for a seed."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight, generator=generator)
                if module.bias is not None:
                    module.bias.zero_()
            elif isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu", generator=generator)
                if module.bias is not None:
                    module.bias.zero_()
            elif isinstance(module, nn.LayerNorm | nn.GroupNorm):
                module.weight.fill_(1.0)
                module.bias.zero_()
            elif isinstance(module, nn.Embedding):
                module.weight.normal_(0.0, 0.02, generator=generator)
        vision = model.vision_encoder.backbone.embeddings
        vision.position_embeddings.normal_(0.0, 0.02, generator=generator)
        nn.init.xavier_uniform_(
            vision.patch_embeddings.projection.weight.view(vision.patch_embeddings.projection.weight.shape[0], -1),
            generator=generator,
        )
        model.text_encoder.text_model.embeddings.token_embedding.weight.normal_(0.0, 0.1, generator=generator)
        decoder = model.detr_decoder
        decoder.query_embed.weight.normal_(0.0, 1.0, generator=generator)
        decoder.presence_token.weight.normal_(0.0, 1.0, generator=generator)
        decoder.reference_points.weight.copy_(_spread_reference_points(decoder.config.num_queries))
        decoder.box_head.layer3.weight.zero_()
        decoder.box_head.layer3.bias.zero_()
        model.geometry_encoder.cls_embed.weight.normal_(0.0, 1.0, generator=generator)
        model.geometry_encoder.label_embed.weight.normal_(0.0, 1.0, generator=generator)
        model.mask_decoder.semantic_projection.bias.fill_(RARE)


def _spread_reference_points(queries: int) -> torch.Tensor:
    """Logits (queries, 4) of boxes whose centres follow a Halton sequence and whose sizes vary."""
    index = torch.arange(1, queries + 1)
    centre_x, centre_y = _radical_inverse(index, 2), _radical_inverse(index, 3)
    extent = 0.15 + 0.5 * _radical_inverse(index, 5)
    boxes = torch.stack((centre_x, centre_y, extent, extent), dim=1)
    return torch.logit(boxes, eps=0.02)


def _radical_inverse(index: torch.Tensor, base: int) -> torch.Tensor:
    result = torch.zeros(index.shape, dtype=torch.float32)
    fraction = 1.0 / base
    rest = index.clone()
    while bool((rest > 0).any()):
        result += fraction * (rest % base)
        rest = rest // base
        fraction /= base
    return result
