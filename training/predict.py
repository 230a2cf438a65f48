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
from training.sam3.checkpoint import load_checkpoint, load_model
from training.sam3.model import ImageFeatures, Predictions, PromptableSam3
from training.sam3.preprocess import official_pixel_values
from training.sam3.source import image_size_of
from training.sam3.tokenizer import PromptTokenizer
from training.spec import CONFIG, START, TOKENIZER, WEIGHTS

_OFFICIAL = Decision()  # neither calibrated nor with thresholds of its own


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


def on_grid(probability: NDArray[np.floating], height: int, width: int) -> NDArray[np.float32]:
    """A map of probabilities (rows, columns) on the (height, width) grid, bilinear."""
    stacked = torch.from_numpy(np.asarray(probability, dtype=np.float32))[None, None]
    result: NDArray[np.float32] = F.interpolate(stacked, (height, width), mode="bilinear", align_corners=False)[
        0, 0
    ].numpy()
    return result


def query_scores(predictions: Predictions, decision: Decision = _OFFICIAL) -> Tensor:
    """(prompts, queries) score of each query: of its box, times presence."""
    return predictions.logits[-1].float().sigmoid() * presence_of(predictions, decision).unsqueeze(1)


def boxes_in_pixels(predictions: Predictions, height: int, width: int) -> Tensor:
    """(prompts, queries, 4) xyxy boxes in pixels of a (height, width) image, not clipped to it."""
    return cxcywh_to_xyxy(predictions.boxes_cxcywh[-1].float()) * torch.tensor([width, height, width, height])


def instances_of(
    predictions: Predictions, prompt: int, height: int, width: int, threshold: float, decision: Decision = _OFFICIAL
) -> list[dict[str, Any]]:
    """Queries of a prompt whose score is above the threshold, in query order: `query`, `score`, `bbox_xyxy`, `mask`."""
    scores = query_scores(predictions, decision)[prompt]
    boxes = boxes_in_pixels(predictions, height, width)[prompt]
    boxes = torch.minimum(boxes.clamp(min=0), boxes.new_tensor([width, height, width, height]))
    return [
        {
            "query": query,
            "score": float(scores[query]),
            "bbox_xyxy": [float(value) for value in boxes[query]],
            "mask": probability_map(predictions.masks[prompt, query], height, width) > 0.5,
        }
        for query in torch.nonzero(scores > threshold).flatten().tolist()
    ]


def to_pixel_values(pixels: NDArray[np.uint8], size: int, preprocessing: str = "pillow") -> Tensor:
    """(height, width[, channels]) uint8 to (3, size, size) in -1..1, stretched with antialiasing as SAM3 does.

    `preprocessing` of the model's config.json says by which of two resizes, which differ by a grey level.
    """
    array = pixels[..., 0] if pixels.ndim == 3 and pixels.shape[-1] == 1 else pixels
    if array.dtype != np.uint8 or array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[-1] != 3):
        found = f"{array.dtype} {pixels.shape}"
        msg = f"image: expected uint8 of shape (height, width) or (height, width, 1 or 3), found {found}"
        raise UsageError(msg)
    if preprocessing == "official":
        return official_pixel_values(np.stack([array] * 3, axis=-1) if array.ndim == 2 else array, size)
    picture = Image.fromarray(array).convert("RGB").resize((size, size), Image.Resampling.BILINEAR)
    return (torch.from_numpy(np.array(picture)).permute(2, 0, 1).float() / 255 - 0.5) / 0.5


class Segmenter:
    """A loaded model folder (the engine that `config.json` names)."""

    def __init__(
        self,
        model: PromptableSam3,
        tokenizer: PromptTokenizer,
        image_size: int,
        decision: Decision,
        preprocessing: str = "pillow",
        neighbours: int = 0,
    ) -> None:
        """`neighbours`: slices from a slice of a volume to those that the model expects as its other channels."""
        self.model, self.tokenizer, self.image_size, self.decision = model, tokenizer, image_size, decision
        self.preprocessing, self.neighbours = preprocessing, neighbours

    @classmethod
    def load(cls, folder: Path, weights: str = WEIGHTS) -> Segmenter:
        """Load a folder written by training; strict about its keys, no pickle."""
        config: dict[str, Any] = read_json(Path(folder) / CONFIG)
        return cls(
            load_model(Path(folder), weights),
            PromptTokenizer.load(Path(folder) / TOKENIZER),
            int(config["image_size"]),
            Decision(**config.get("start_decision" if weights == START else "decision", {})),
            str(config.get("preprocessing", "pillow")),
            int(config.get("neighbours", 0)),
        )

    @classmethod
    def of_checkpoint(cls, source: str | Path, image_size: int | None = None) -> Segmenter:
        """Serve published weights as they are (any layout of `load_checkpoint`), with the official preprocessing."""
        model, _ = load_checkpoint(source, image_size=image_size, digest=False)
        size = image_size_of(model.config.to_dict())
        return cls(model, PromptTokenizer.from_installed(), size, Decision(), "official")

    @torch.inference_mode()
    def encode(self, images: list[NDArray[np.uint8]]) -> ImageFeatures:
        """Vision features of images of any size."""
        values = [to_pixel_values(image, self.image_size, self.preprocessing) for image in images]
        return self.model.encode_images(torch.stack(values))

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

    def segment_volume(self, volume_u8_zyx: NDArray[np.uint8], prompts: list[str]) -> list[dict[str, Any]]:
        """Segment a volume (slices, height, width[, channels]) by text: `training.volumes.serve.segment_volume`."""
        from training.volumes.serve import segment_volume

        return segment_volume(self, volume_u8_zyx, prompts)

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
        results = []
        for number, prompt in enumerate(prompts):
            score = float(scores[number])
            instances = instances_of(
                predictions, number, height, width, self.decision.instance_threshold, self.decision
            )
            mask = probability_map(predictions.semantic[number], height, width) > self.decision.mask_threshold
            if float(presences[number]) < self.decision.presence_threshold:
                mask = np.zeros_like(mask)
            results.append({"prompt": prompt, "score": score, "mask": mask, "instances": instances})
        return results
