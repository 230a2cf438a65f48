"""Phantom_Lesion_US: ultrasound-like pictures; the mask's colour says what the lesion is (green or red)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
from scipy.ndimage import gaussian_filter

from preprocessing.phantoms import Fault, Truth
from preprocessing.phantoms.shapes import Grey, Mask, blob, generator, save_png, texture, to_bytes

NAME = "Phantom_Lesion_US"
CASES = 24
BENIGN, MALIGNANT = "benign phantom lesion", "malignant phantom lesion"
COLOURS = {BENIGN: (0, 255, 0), MALIGNANT: (255, 0, 0)}
UNKNOWN_COLOUR = (0, 0, 255)
SIZE = (120, 144)  # height, width


def make(folder: Path, seed: int) -> Truth:
    """Write images/ and masks/ below `folder`: 24 sound pictures and one whose mask has an unknown colour."""
    truth = Truth()
    for case in range(1, CASES + 2):
        rng = generator(seed, NAME, case)
        concept = BENIGN if case % 2 else MALIGNANT
        mask = _lesion(rng, concept)
        name = f"us_{case:03d}"
        spoiled = case > CASES
        colour = UNKNOWN_COLOUR if spoiled else COLOURS[concept]
        save_png(folder / "images" / f"{name}.png", _picture(rng, mask, concept))
        save_png(folder / "masks" / f"{name}.png", mask.astype(np.uint8)[..., None] * np.array(colour, np.uint8))
        if spoiled:
            truth.faults.append(Fault(name, f"masks/{name}.png", "unknown_label"))
        else:
            truth.voxels[name] = {concept: int(mask.sum())}
    return truth


def _lesion(rng: np.random.Generator, concept: str) -> Mask:
    """Benign: a smooth lying ellipse. Malignant: a spiky one, taller than wide."""
    centre = (float(rng.uniform(48, 76)), float(rng.uniform(44, 100)))
    if concept == BENIGN:
        radii = (float(rng.uniform(11, 17)), float(rng.uniform(19, 29)))
        return blob(SIZE, centre, radii, float(rng.uniform(-0.3, 0.3)), [(2, 0.04, float(rng.uniform(0, 6)))])
    radii = (float(rng.uniform(20, 27)), float(rng.uniform(15, 21)))
    waves = [(7, 0.14, float(rng.uniform(0, 6))), (11, 0.08, float(rng.uniform(0, 6))), (3, 0.08, 0.0)]
    return blob(SIZE, centre, radii, float(rng.uniform(-0.3, 0.3)), waves)


def _picture(rng: np.random.Generator, mask: Mask, concept: str) -> npt.NDArray[np.uint8]:
    """Layered tissue under fully developed speckle; sound passes a cyst and is swallowed by a tumour."""
    layers = texture(rng, (SIZE[0], 1), 5.0) * 0.16 + texture(rng, SIZE, 7.0) * 0.10
    echo = 1.0 + layers
    below = np.cumsum(mask, axis=0) > 0
    behind = gaussian_filter((below & ~mask).astype(np.float32), (2, 3))
    echo *= 1 + (0.55 if concept == BENIGN else -0.35) * behind
    inside = 0.16 if concept == BENIGN else 0.26
    echo = np.where(mask, inside * (1 + 0.3 * texture(rng, SIZE, 2.0)), echo)
    echo = gaussian_filter(echo, 0.7) * np.linspace(1.08, 0.72, SIZE[0], dtype=np.float32)[:, None]
    return to_bytes(112 * np.clip(echo, 0.02, None) ** 0.8 * _speckle(rng))


def _speckle(rng: np.random.Generator) -> Grey:
    """Amplitude of many scatterers, Rayleigh distributed with mean 1, grains longer across the beam."""
    real, other = (gaussian_filter(rng.standard_normal(SIZE, dtype=np.float32), (0.7, 1.2)) for _ in range(2))
    amplitude = np.hypot(real, other)
    # log compression narrows the range, as a scanner's display does
    shown = np.log1p(3 * amplitude / amplitude.mean())
    return np.asarray(shown / shown.mean(), dtype=np.float32)
