"""Serve a model folder: an image and text prompts in, masks and scores out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from infra.errors import UsageError
from infra.storage import read_json
from training.decision import Decision
from training.sam3.boxes import cxcywh_to_xyxy
from training.sam3.checkpoint import load_model
from training.sam3.model import ImageFeatures, Predictions, PromptableSam3
from training.sam3.tokenizer import PromptTokenizer
from training.spec import CONFIG, START, TOKENIZER, WEIGHTS


def presence_of(predictions: Predictions, decision: Decision) -> Tensor:
    """(prompts,) probability that the concept is there at all, from the presence token: what a mask is gated by.

    The decision's calibration is in it.

    SAM3 parts what is there from where it is: a query's score says how well its box fits, and stays low for
    objects that are hard to box, however certain it is that they are there.
    """
    return (predictions.presence[-1].float() * decision.presence_scale + decision.presence_shift).sigmoid()


def concept_scores(predictions: Predictions, decision: Decision) -> Tensor:
    """(prompts,) SAM3's confidence: best query score times presence."""
    return predictions.logits[-1].float().sigmoid().amax(dim=1) * presence_of(predictions, decision)


def probability_map(logits: Tensor, height: int, width: int) -> NDArray[np.float32]:
    """A map's logits (rows, columns) to probabilities on the (height, width) grid, bilinear."""
    resized = F.interpolate(logits.float()[None, None], (height, width), mode="bilinear", align_corners=False)
    result: NDArray[np.float32] = resized[0, 0].sigmoid().numpy()
    return result


def to_pixel_values(pixels: NDArray[np.uint8], size: int) -> Tensor:
    """(height, width[, channels]) uint8 to (3, size, size) in -1..1, stretched with antialiasing as SAM3 does."""
    array = pixels[..., 0] if pixels.ndim == 3 and pixels.shape[-1] == 1 else pixels
    if array.dtype != np.uint8 or array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[-1] != 3):
        found = f"{array.dtype} {pixels.shape}"
        msg = f"image: expected uint8 of shape (height, width) or (height, width, 1 or 3), found {found}"
        raise UsageError(msg)
    picture = Image.fromarray(array).convert("RGB").resize((size, size), Image.Resampling.BILINEAR)
    return (torch.from_numpy(np.array(picture)).permute(2, 0, 1).float() / 255 - 0.5) / 0.5


class Segmenter:
    """A loaded model folder (the engine that `config.json` names)."""

    def __init__(self, model: PromptableSam3, tokenizer: PromptTokenizer, image_size: int, decision: Decision) -> None:
        self.model, self.tokenizer, self.image_size, self.decision = model, tokenizer, image_size, decision

    @classmethod
    def load(cls, folder: Path, weights: str = WEIGHTS) -> Segmenter:
        """Load a folder written by training; strict about its keys, no pickle."""
        config: dict[str, Any] = read_json(Path(folder) / CONFIG)
        return cls(
            load_model(Path(folder), weights),
            PromptTokenizer.load(Path(folder) / TOKENIZER),
            int(config["image_size"]),
            Decision(**config.get("start_decision" if weights == START else "decision", {})),
        )

    @torch.inference_mode()
    def encode(self, images: list[NDArray[np.uint8]]) -> ImageFeatures:
        """Vision features of images of any size."""
        return self.model.encode_images(torch.stack([to_pixel_values(image, self.image_size) for image in images]))

    @torch.inference_mode()
    def decode(
        self,
        features: ImageFeatures,
        prompts: list[str],
        image_of_prompt: list[int],
        boxes_cxcywh: Tensor | None = None,
        box_labels: Tensor | None = None,
    ) -> Predictions:
        """Head outputs for prompts on encoded images; equal texts are encoded once."""
        texts = sorted(set(prompts))
        place = {text: number for number, text in enumerate(texts)}
        return self.model.decode(
            features,
            self.model.encode_text(self.tokenizer(texts)),
            torch.tensor(image_of_prompt),
            torch.tensor([place[prompt] for prompt in prompts]),
            boxes_cxcywh,
            box_labels,
        )

    def segment(self, image_u8_hwc: NDArray[np.uint8], prompts: list[str]) -> list[dict[str, Any]]:
        """Segment one image by text.

        Args:
            image_u8_hwc: (height, width, 1 or 3) or (height, width) uint8.
            prompts: concept names or synonyms.

        Returns:
            One dict a prompt: `prompt`, `score` (0..1), `mask` bool (height, width), `instances`, a list of
            `{"score", "bbox_xyxy" (pixels), "mask" bool (height, width)}` above the instance threshold.
        """
        if not prompts:
            return []
        height, width = image_u8_hwc.shape[:2]
        predictions = self.decode(self.encode([image_u8_hwc]), prompts, [0] * len(prompts))
        scores = concept_scores(predictions, self.decision)
        presences = presence_of(predictions, self.decision)
        query_scores = predictions.logits[-1].sigmoid() * presences.unsqueeze(1)
        boxes = cxcywh_to_xyxy(predictions.boxes_cxcywh[-1]).clamp(0, 1) * torch.tensor([width, height, width, height])
        results = []
        for number, prompt in enumerate(prompts):
            score = float(scores[number])
            instances = []
            for query in torch.nonzero(query_scores[number] > self.decision.instance_threshold).flatten().tolist():
                mask = probability_map(predictions.masks[number, query], height, width) > 0.5
                instances.append(
                    {
                        "score": float(query_scores[number, query]),
                        "bbox_xyxy": [float(value) for value in boxes[number, query]],
                        "mask": mask,
                    }
                )
            mask = probability_map(predictions.semantic[number], height, width) > self.decision.mask_threshold
            if float(presences[number]) < self.decision.presence_threshold:
                mask = np.zeros_like(mask)
            results.append({"prompt": prompt, "score": score, "mask": mask, "instances": instances})
        return results
