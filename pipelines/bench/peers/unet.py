"""MONAI's U-Net on one dataset after another, each trained from nothing for the same number of seconds.

Each dataset is a folder with `train_images.npy` (images, height, width, 3) uint8, `train_maps.npy` (images,
concepts, height, width) uint8 coverage, `train_known.npy` (images, concepts) bool: whether the image was searched
for the concept, and `asked_images.npy`. Writes `probabilities.npy` (asked images, concepts, height, width) beside
them, and `trained.json` with steps and seconds.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from monai.networks.nets import UNet

BATCH = 8
LEARNING_RATE = 1e-3
WARM_UP = 0.05


def augmented(images: torch.Tensor, maps: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The usual ones: flip, turn up to 15 degrees, zoom and shift up to a tenth, brightness and contrast."""
    count = len(images)
    angle = (torch.rand(count) - 0.5) * math.radians(30)
    zoom = 1 + (torch.rand(count) - 0.5) * 0.2
    mirror = torch.where(torch.rand(count) < 0.5, -1.0, 1.0)
    shift = (torch.rand(count, 2) - 0.5) * 0.2
    cos, sin = torch.cos(angle) * zoom, torch.sin(angle) * zoom
    matrix = torch.stack(
        [torch.stack([cos * mirror, -sin, shift[:, 0]], 1), torch.stack([sin * mirror, cos, shift[:, 1]], 1)], 1
    )
    grid = F.affine_grid(matrix, list(images.shape), align_corners=False)
    images, maps = F.grid_sample(images, grid, align_corners=False), F.grid_sample(maps, grid, align_corners=False)
    gain, bias = 1 + (torch.rand(count, 1, 1, 1) - 0.5) * 0.4, (torch.rand(count, 1, 1, 1) - 0.5) * 0.3
    return images * gain + bias, maps


def loss_of(logits: torch.Tensor, maps: torch.Tensor, known: torch.Tensor) -> torch.Tensor:
    """Binary cross-entropy and Dice, over the maps that are known."""
    rows, truth = logits.flatten(2), maps.flatten(2)
    entropy = F.binary_cross_entropy_with_logits(rows, truth, reduction="none").mean(2)
    probability = rows.sigmoid()
    dice = 1 - (2 * (probability * truth).sum(2) + 1) / (probability.sum(2) + truth.sum(2) + 1)
    weight = known.float()
    return ((entropy + dice) * weight).sum() / weight.sum().clamp(min=1)


def normalised(images: np.ndarray) -> torch.Tensor:
    """(images, 3, height, width) in -1..1."""
    return (torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255 - 0.5) / 0.5


def train_one(folder: Path, seconds: float, seed: int) -> None:
    """Train, ask and write; the clock starts with the first step."""
    torch.manual_seed(seed)
    images, maps = normalised(np.load(folder / "train_images.npy")), np.load(folder / "train_maps.npy")
    truth, known = torch.from_numpy(maps).float() / 255, torch.from_numpy(np.load(folder / "train_known.npy"))
    model = UNet(
        spatial_dims=2,
        in_channels=3,
        out_channels=maps.shape[1],
        channels=(24, 48, 96, 192, 256),
        strides=(2, 2, 2, 2),
        num_res_units=2,
    )
    optimiser = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE)
    steps, begun = 0, time.monotonic()
    while (done := (time.monotonic() - begun) / seconds) < 1:
        rate = min(1.0, (done + 1e-3) / WARM_UP) * 0.5 * (1 + math.cos(math.pi * done))
        for group in optimiser.param_groups:
            group["lr"] = LEARNING_RATE * rate
        chosen = torch.randint(len(images), (BATCH,))
        batch, wanted = augmented(images[chosen], truth[chosen])
        loss = loss_of(model(batch), wanted, known[chosen])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        steps += 1
    took = time.monotonic() - begun
    model.eval()
    with torch.inference_mode():
        asked = normalised(np.load(folder / "asked_images.npy"))
        found = [model(part).sigmoid().half() for part in asked.split(BATCH)]
    np.save(folder / "probabilities.npy", torch.cat(found).numpy())
    (folder / "trained.json").write_text(json.dumps({"steps": steps, "seconds": took}))


def main() -> None:
    """Train on each folder in turn."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--seconds", type=float, required=True, help="of training for each folder")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=7)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    for folder in options.folders:
        train_one(folder, options.seconds, options.seed)


if __name__ == "__main__":
    main()
