"""A tiny real engine: a threshold per prompt, kept in safetensors. It ships as code with its model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np


class Segmenter:
    """Pixels brighter than the prompt's threshold; an unknown prompt finds nothing."""

    def __init__(self, thresholds: dict[str, float]) -> None:
        self.thresholds = thresholds

    @classmethod
    def load(cls, folder: Path) -> Segmenter:
        from safetensors.numpy import load_file

        names = json.loads((folder / "config.json").read_text())["prompts"]
        values = load_file(folder / "model.safetensors")["thresholds"]
        return cls(dict(zip(names, values.tolist(), strict=True)))

    def segment(self, image_u8_hwc: np.ndarray, prompts: list[str]) -> list[dict[str, Any]]:
        grey = image_u8_hwc.mean(axis=2)
        return [self._one(grey, prompt) for prompt in prompts]

    def _one(self, grey: np.ndarray, prompt: str) -> dict[str, Any]:
        mask = grey > self.thresholds.get(prompt, 256.0)
        instances = []
        if mask.any():
            rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
            box = [float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1)]
            instances = [{"score": 0.9, "bbox_xyxy": box, "mask": mask}]
        return {"prompt": prompt, "score": 0.9 if mask.any() else 0.1, "mask": mask, "instances": instances}
