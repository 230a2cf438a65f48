"""Phantom_MR_NIfTI: oblique, anisotropic volumes with a bright and a dark structure in a textured head."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import numpy.typing as npt
import SimpleITK as sitk
from scipy.spatial.transform import Rotation

from preprocessing.phantoms import Fault, Truth
from preprocessing.phantoms.shapes import Grey, bias_field, cut_short, ellipsoid, generator, texture

NAME = "Phantom_MR_NIfTI"
CASES = 10
BRIGHT, DARK = "bright ellipsoid", "dark ellipsoid"
VALUES = {1: BRIGHT, 2: DARK}


def make(folder: Path, seed: int) -> Truth:
    """Write imagesTr/ and labelsTr/ below `folder`: ten sound cases and three spoiled ones."""
    truth = Truth()
    for case in range(1, CASES + 1):
        image, label = _volume(seed, case)
        name = f"phantom_{case:03d}"
        _save(folder / "imagesTr" / f"{name}.nii.gz", image)
        _save(folder / "labelsTr" / f"{name}.nii.gz", label)
        values = sitk.GetArrayFromImage(label)
        truth.voxels[name] = {concept: int((values == value).sum()) for value, concept in VALUES.items()}
    _plant(folder, seed, truth)
    return truth


def _plant(folder: Path, seed: int, truth: Truth) -> None:
    """An image without label, a label of another size, a file cut off in the middle."""
    orphan, smaller, short = (f"phantom_{case:03d}" for case in range(CASES + 1, CASES + 4))
    image, _ = _volume(seed, CASES + 1)
    _save(folder / "imagesTr" / f"{orphan}.nii.gz", image)
    truth.faults.append(Fault(orphan, f"imagesTr/{orphan}.nii.gz", "label_missing"))
    image, label = _volume(seed, CASES + 2)
    _save(folder / "imagesTr" / f"{smaller}.nii.gz", image)
    _save(folder / "labelsTr" / f"{smaller}.nii.gz", label[:-4, :, :])
    truth.faults.append(Fault(smaller, f"labelsTr/{smaller}.nii.gz", "mask_size"))
    image, label = _volume(seed, CASES + 3)
    _save(folder / "imagesTr" / f"{short}.nii.gz", image)
    _save(folder / "labelsTr" / f"{short}.nii.gz", label)
    cut_short(folder / "imagesTr" / f"{short}.nii.gz", 0.6)
    truth.faults.append(Fault(short, f"imagesTr/{short}.nii.gz", "unreadable"))


def _volume(seed: int, case: int) -> tuple[sitk.Image, sitk.Image]:
    """One image (int16) and its label (uint8) on one oblique grid."""
    rng = generator(seed, NAME, case)
    shape = (int(rng.integers(16, 21)), int(rng.integers(60, 73)), int(rng.integers(56, 69)))  # z, y, x
    middle = (np.array(shape) - 1) / 2
    head = ellipsoid(shape, middle, np.array(shape) * (0.60, 0.46, 0.44))
    side = rng.choice((-1.0, 1.0))
    bright = ellipsoid(
        shape, middle + rng.uniform(-1, 1, 3) * (2, 4, 3) + (0, 0, side * 11), rng.uniform((4, 7, 6), (6, 11, 9))
    )
    dark = ellipsoid(
        shape, middle + rng.uniform(-1, 1, 3) * (2, 5, 3) - (0, 0, side * 11), rng.uniform((4, 6, 5), (6, 10, 8))
    )
    label = np.zeros(shape, dtype=np.uint8)
    label[bright], label[dark & ~bright] = 1, 2
    image = np.where(head, 420.0, 25.0).astype(np.float32)
    image += head * 45.0 * texture(rng, shape, 2.5)
    # Skin is as bright as the bright structure and the ventricle-like gap as dark as the dark one: brightness
    # alone does not give the answer away.
    skin = head & ~ellipsoid(shape, middle, np.array(shape) * (0.56, 0.42, 0.40))
    image[skin] += 230.0
    image[label == 1] += 260.0 + rng.uniform(-30, 30)
    image[label == 2] -= 230.0 + rng.uniform(-30, 30)
    image *= bias_field(rng, shape, 0.18)
    image = _rician(rng, image, 22.0)
    spacing = (float(rng.choice((0.9, 1.0, 1.1))), float(rng.choice((0.9, 1.0, 1.1))), float(rng.choice((2.5, 3.0))))
    degrees, origin = rng.uniform(-18, 18, 3), rng.uniform(-60, 60, 3)
    return _on_grid(image.astype(np.int16), spacing, degrees, origin), _on_grid(label, spacing, degrees, origin)


def _rician(rng: np.random.Generator, image: Grey, sigma: float) -> Grey:
    """Noise of a magnitude image: two channels, each with Gaussian noise (Gudbjartsson and Patz 1995)."""
    real = image + sigma * rng.standard_normal(image.shape, dtype=np.float32)
    other = sigma * rng.standard_normal(image.shape, dtype=np.float32)
    return np.asarray(np.hypot(real, other), dtype=np.float32)


def _on_grid(
    array: npt.NDArray[np.generic],
    spacing_xyz: tuple[float, float, float],
    degrees: npt.NDArray[np.float64],
    origin_xyz: npt.NDArray[np.float64],
) -> sitk.Image:
    """`array` (z, y, x) as an image turned by `degrees` about x, y and z; millimetres, LPS."""
    image = sitk.GetImageFromArray(array)
    image.SetSpacing(spacing_xyz)
    image.SetOrigin([float(value) for value in origin_xyz])
    image.SetDirection(
        [float(value) for value in Rotation.from_euler("xyz", degrees, degrees=True).as_matrix().ravel()]
    )
    return image


def _save(path: Path, image: sitk.Image) -> None:
    """Write .nii.gz whose bytes do not depend on the time of day (gzip keeps one in its header)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    plain = path.with_suffix("")
    sitk.WriteImage(image, str(plain))
    path.write_bytes(gzip.compress(plain.read_bytes(), compresslevel=6, mtime=0))
    plain.unlink()
