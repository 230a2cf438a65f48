"""SAM3 for fine-tuning, on transformers' `Sam3Model`.

What the subclass adds (the facts are in docs/training.md): outputs of every decoder layer for the
auxiliary losses; one image with many prompts (vision once, head once a prompt); the geometry
encoder's CLS token in text-only calls, as the official model has it; RoIAlign without torchvision;
layers that can be recomputed and stages that torch.compile takes whole (`layers.py`).
The state_dict is transformers' own, name by name.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor
from transformers.models.sam3.configuration_sam3 import Sam3Config
from transformers.models.sam3.modeling_sam3 import (
    Sam3GeometryEncoder,
    Sam3Model,
    inverse_sigmoid,
)

from training.sam3.boxes import cxcywh_to_xyxy
from training.sam3.layers import DetrDecoder, DetrEncoderLayer, GeometryLayer, MaskDecoder, SinePosition, grid_of
from training.sam3.one_to_many import SelfAttention, decode_twice
from training.sam3.roi_align import roi_align

PADDING_LABEL = -10
"""Label of a box that is not there; transformers masks it out and keeps the CLS token."""


@dataclass
class ImageFeatures:
    """What the vision encoder says of a batch of images: levels from fine to coarse."""

    levels: tuple[Tensor, ...]  # each (images, channels, height, width)
    positions: tuple[Tensor, ...]


@dataclass
class TextFeatures:
    """Text prompts after the encoder and the projection to the model's width."""

    features: Tensor  # (prompts, tokens, channels)
    mask: Tensor  # (prompts, tokens) bool, True = a real token


@dataclass
class OneToMany:
    """What the second set of queries says (`one_to_many.py`); axes as in `Predictions`."""

    logits: Tensor
    boxes_cxcywh: Tensor
    masks: Tensor


@dataclass
class Predictions:
    """Head outputs for a pack of prompts; the first axis of layered tensors is the decoder layer."""

    logits: Tensor  # (layers, prompts, queries)
    boxes_cxcywh: Tensor  # (layers, prompts, queries, 4), normalised
    presence: Tensor  # (layers, prompts)
    masks: Tensor  # (prompts, queries, height, width) logits, last layer
    semantic: Tensor  # (prompts, height, width) logits
    one_to_many: OneToMany | None = None  # where it was asked for


class GeometryEncoder(Sam3GeometryEncoder):
    """transformers' box prompt encoder with our RoIAlign in place of torchvision's."""

    def _encode_boxes(
        self, boxes: Tensor, boxes_mask: Tensor, boxes_labels: Tensor, vision_features: Tensor
    ) -> tuple[Tensor, Tensor]:
        prompts, count = boxes.shape[:2]
        height, width = vision_features.shape[-2:]
        scale = boxes.new_tensor([width, height, width, height])
        sampled = roi_align(vision_features.float(), cxcywh_to_xyxy(boxes.float()) * scale, self.roi_size)
        pooled = self.boxes_pool_project(sampled.flatten(0, 1).to(vision_features.dtype))
        cx, cy, w, h = (part.flatten() for part in boxes.unbind(-1))
        encoded = self._encode_box_coordinates(cx, cy, w, h).view(prompts, count, -1)
        embedded = (
            self.boxes_direct_project(boxes)
            + pooled.view(prompts, count, self.hidden_size)
            + self.boxes_pos_enc_project(encoded.to(boxes.dtype))
            + self.label_embed(boxes_labels.long())
        )
        return embedded, boxes_mask


class PromptableSam3(Sam3Model):
    """SAM3's image model, split into its three stages so that a prompt costs only its own head."""

    supports_gradient_checkpointing = True

    def __init__(self, config: Sam3Config) -> None:
        super().__init__(config)
        self.geometry_encoder = GeometryEncoder(config.geometry_encoder_config)
        self.detr_decoder = DetrDecoder(config.detr_decoder_config, grid_of(config))
        self.mask_decoder = MaskDecoder(config.mask_decoder_config)
        self.vision_encoder.neck.position_encoding.__class__ = SinePosition
        for layer in self.geometry_encoder.layers:
            layer.__class__ = GeometryLayer
        for layer in self.detr_encoder.layers:
            layer.__class__ = DetrEncoderLayer
        for layer in self.detr_decoder.layers:
            layer.self_attn.__class__ = SelfAttention

    def compile_stages(self, **options: Any) -> None:
        """Have `encode_images`, `encode_text` and `decode` compiled, each as one graph, when they are first called.

        `options` go to torch.compile. The weights and their names stay as they are.
        """
        for stage in ("encode_images", "encode_text", "decode"):
            compiled = torch.compile(getattr(self, stage), fullgraph=True, **options)
            object.__setattr__(self, stage, compiled)

    def encode_images(self, pixel_values: Tensor) -> ImageFeatures:
        """Features of images (images, 3, size, size), normalised to -1..1."""
        vision = self.vision_encoder(pixel_values)
        # the last, 0.5x level is computed and dropped by the official model too
        return ImageFeatures(tuple(vision.fpn_hidden_states[:-1]), tuple(vision.fpn_position_encoding[:-1]))

    def encode_text(self, input_ids: Tensor) -> TextFeatures:
        """Features of token ids (prompts, 32); id 0 is padding, as in the official encoder."""
        mask = input_ids != 0
        return TextFeatures(self.get_text_features(input_ids, attention_mask=mask.long()).pooler_output, mask)

    def decode(
        self,
        images: ImageFeatures,
        text: TextFeatures,
        image_of_prompt: Tensor,
        text_of_prompt: Tensor,
        boxes_cxcywh: Tensor | None = None,
        box_labels: Tensor | None = None,
        *,
        one_to_many: bool = False,
    ) -> Predictions:
        """Run the head for a pack of prompts.

        Args:
            images: features of the images.
            text: features of the distinct texts.
            image_of_prompt: (prompts,) index into the images.
            text_of_prompt: (prompts,) index into the texts.
            boxes_cxcywh: (prompts, boxes, 4), normalised; None for text alone.
            box_labels: (prompts, boxes): 1 positive, 0 negative, -10 not there.
            one_to_many: also run the second set of queries that training may use.
        """
        # the head proper looks at the coarsest level; the mask decoder spreads the finer ones over the prompts
        features = images.levels[-1].index_select(0, image_of_prompt)
        position = images.positions[-1][:1].expand(len(image_of_prompt), -1, -1, -1)
        text_features = text.features[text_of_prompt]
        text_mask = text.mask[text_of_prompt]
        count = len(image_of_prompt)
        if boxes_cxcywh is None or box_labels is None:
            boxes_cxcywh = text_features.new_zeros(count, 1, 4)
            box_labels = torch.full((count, 1), PADDING_LABEL, dtype=torch.long, device=text_features.device)
        there = box_labels != PADDING_LABEL
        geometry = self.geometry_encoder(
            box_embeddings=boxes_cxcywh,
            box_mask=there,
            box_labels=torch.where(there, box_labels, 0),
            img_feats=[features],
            img_pos_embeds=[position],
        )
        prompt = torch.cat([text_features, geometry.last_hidden_state], dim=1)
        prompt_mask = torch.cat([text_mask, geometry.attention_mask.bool()], dim=1)
        encoded = self.detr_encoder(
            vision_features=[features],
            text_features=prompt,
            vision_pos_embeds=[position],
            text_mask=prompt_mask,
        )
        decoder = partial(decode_twice, self.detr_decoder) if one_to_many else self.detr_decoder
        decoded = decoder(
            vision_features=encoded.last_hidden_state,
            text_features=prompt,
            vision_pos_encoding=encoded.pos_embeds_flattened,
            text_mask=prompt_mask,
            spatial_shapes=encoded.spatial_shapes,
        )
        hidden = decoded.intermediate_hidden_states
        boxes = (inverse_sigmoid(decoded.reference_boxes) + self.detr_decoder.box_head(hidden)).sigmoid()
        logits = self.dot_product_scoring(decoder_hidden_states=hidden, text_features=prompt, text_mask=prompt_mask)
        masks = self.mask_decoder(
            decoder_queries=hidden[-1],
            backbone_features=list(images.levels),
            encoder_hidden_states=encoded.last_hidden_state,
            prompt_features=prompt,
            prompt_mask=prompt_mask,
            image_of_prompt=image_of_prompt,
        )
        logits, queries = logits.squeeze(-1), self.detr_decoder.config.num_queries
        second = OneToMany(logits[..., queries:], boxes[:, :, queries:], masks.pred_masks[:, queries:])
        return Predictions(
            logits=logits[..., :queries],
            boxes_cxcywh=boxes[:, :, :queries],
            presence=decoded.presence_logits.squeeze(-1),
            masks=masks.pred_masks[:, :queries],
            semantic=masks.semantic_seg.squeeze(1),
            one_to_many=second if one_to_many else None,
        )
