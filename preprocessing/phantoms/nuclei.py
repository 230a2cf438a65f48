"""Phantom_Nuclei: microscopy-like pictures with one mask file per nucleus, laid out as DSB2018 is."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
from scipy.ndimage import binary_dilation, gaussian_filter

from infra.storage import sha256_bytes
from preprocessing.phantoms import Truth
from preprocessing.phantoms.shapes import Mask, blob, generator, save_png, texture, to_bytes

NAME = "Phantom_Nuclei"
CASES = 24
CONCEPT = "phantom nucleus"
SIZE = (112, 128)  # height, width


def make(folder: Path, seed: int) -> Truth:
    """Write `stage1_train/<case>/images/<case>.png` and `…/masks/<instance>.png` below `folder`."""
    truth = Truth()
    for case in range(1, CASES + 1):
        rng = generator(seed, NAME, case)
        masks = _nuclei(rng)
        name = sha256_bytes(f"{NAME} {seed} {case}".encode())[:32]
        home = folder / "stage1_train" / name
        save_png(home / "images" / f"{name}.png", _picture(rng, masks, stained=case % 4 == 0))
        for number, mask in enumerate(masks, start=1):
            file = sha256_bytes(f"{name} {number}".encode())[:32]
            save_png(home / "masks" / f"{file}.png", mask.astype(np.uint8) * 255)
        truth.voxels[name] = {CONCEPT: int(sum(mask.sum() for mask in masks))}
        truth.instances[name] = {CONCEPT: len(masks)}
    return truth


def _nuclei(rng: np.random.Generator) -> list[Mask]:
    """Between 6 and 18 nuclei that do not touch; some are cut by the edge of the picture."""
    taken: Mask = np.zeros(SIZE, dtype=np.bool_)
    masks: list[Mask] = []
    wanted, scale = int(rng.integers(6, 19)), rng.uniform(0.8, 1.3)
    for _ in range(wanted * 4):
        centre = (float(rng.uniform(0, SIZE[0])), float(rng.uniform(0, SIZE[1])))
        radii = (float(scale * rng.uniform(5, 8)), float(scale * rng.uniform(6, 11)))
        waves = [(2, 0.08, float(rng.uniform(0, 6))), (3, 0.06, float(rng.uniform(0, 6)))]
        mask = blob(SIZE, centre, radii, float(rng.uniform(0, np.pi)), waves)
        if mask.sum() >= 40 and not (binary_dilation(mask, iterations=2) & taken).any():
            masks.append(mask)
            taken |= mask
        if len(masks) == wanted:
            break
    return masks


def _picture(rng: np.random.Generator, masks: list[Mask], *, stained: bool) -> npt.NDArray[np.uint8]:
    """RGB: bright nuclei on black (fluorescence), or violet ones on pink (a stained section)."""
    level = np.zeros(SIZE, dtype=np.float32)
    for mask in masks:
        level[mask] = rng.uniform(0.55, 1.0)
    level = gaussian_filter(level, 0.8)
    grain = texture(rng, SIZE, 1.5)
    noise = rng.standard_normal(SIZE, dtype=np.float32)
    if not stained:
        # debris: dim specks that are no nuclei
        specks = (rng.uniform(size=SIZE) > 0.996).astype(np.float32)
        grey = 14 + 165 * level * (1 + 0.12 * grain) + 160 * gaussian_filter(specks, 0.9) + 6 * noise
        return np.repeat(to_bytes(grey)[..., None], 3, axis=2)
    tissue, ink = np.array([226, 178, 205], dtype=np.float32), np.array([96, 58, 140], dtype=np.float32)
    colour = tissue + (ink - tissue) * level[..., None] + (9 * grain + 4 * noise)[..., None]
    return to_bytes(colour)
