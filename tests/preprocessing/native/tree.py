"""A dataset of a few cases in its native layout: three sound ones, one without label, one with a spoilt label."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from tests.preprocessing.native.writers import Array, Masks, Writer, save

SOUND, ORPHAN, SPOILT = (0, 1, 2), 3, 4
FLAT, DEEP = (64, 96), (5, 24, 32)
Fields = Mapping[str, str]


def cut(path: Path) -> None:
    """Leave half of a file."""
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@dataclass(frozen=True)
class Native:
    """How a dataset lies on disk. `names(i)` are the fields of case i for the templates of paths and case id.

    `together`: cases 0 and 1 are of one patient, video or slide, case 2 is not. `splits`: official split of
    the three sound cases. A label is spoilt by its size, or by `spoil` where the format has none.
    """

    image: str
    labels: Mapping[str, Writer]
    names: Callable[[int], Fields]
    case_id: str
    concepts: tuple[str, ...]
    deep: bool = False
    colour: bool = False
    image_key: str = ""
    dtype: type = np.uint8
    together: bool | None = None  # None: every case is a group of its own
    splits: tuple[str, str, str] = ("", "", "")
    spoil: Callable[[Path], None] | None = None
    spoilt: str = "mask_size"
    beside: Mapping[str, bytes] = field(default_factory=dict)  # files that are no data
    axes: Callable[[Array], Array] = lambda array: array  # of the image, where it is stored in another way


@dataclass(frozen=True)
class Made:
    """What was written: truth by case id and concept, and why cases must be refused."""

    truth: dict[str, dict[str, np.ndarray]]
    refused: dict[str, str]


def masks_of(native: Native, case: int, shape: tuple[int, ...]) -> dict[str, np.ndarray]:
    """A box for each concept, on a grid of 16 pixels (JPEG's blocks), no two alike, none touching another.

    Where there are more concepts than places, a case shows a part of them.
    """
    step = 16 if len(shape) == 2 else 8
    rows, columns = shape[-2] // step, shape[-1] // step
    places = [(row, column) for row in range(0, rows, 2) for column in range(0, columns, 2)]
    count = min(len(places), len(native.concepts))
    chosen = [native.concepts[(case * count + index) % len(native.concepts)] for index in range(count)]
    free = places[case % len(places) :] + places[: case % len(places)]
    masks = {}
    for concept in dict.fromkeys(chosen):
        # what is called left lies on the patient's left, where x is large
        side = {"left": lambda at: at[1] * 2 >= columns, "right": lambda at: at[1] * 2 < columns}.get(
            concept.split()[0]
        )
        row, column = next(filter(side, free), free[0])
        free.remove((row, column))
        mask = np.zeros(shape, dtype=bool)
        flat = mask[1 : 3 + case % 2] if len(shape) == 3 else mask
        flat[..., row * step : (row + 1) * step, column * step : (column + 1) * step] = True
        masks[concept] = mask
    return masks


def make(native: Native, root: Path) -> Made:
    """Write the dataset below `root`."""
    rng = np.random.default_rng(3)
    shape = DEEP if native.deep else FLAT
    made = Made({}, {})
    for case in range(5):
        fields = native.names(case)
        pixels = rng.integers(0, 200, (*shape, 3) if native.colour else shape).astype(native.dtype)
        save(root / native.image.format(**fields), native.axes(pixels), native.image_key)
        case_id = native.case_id.format(**fields)
        if case == ORPHAN:
            made.refused[case_id] = "label_missing"
            continue
        other = (*shape[:-2], shape[-2] + 16, shape[-1] + 16)
        masks = masks_of(native, case, other if case == SPOILT and native.spoil is None else shape)
        _write_labels(native, root, fields, masks, spoilt=case == SPOILT)
        if case == SPOILT:
            made.refused[case_id] = native.spoilt
        else:
            made.truth[case_id] = masks
    for name, content in native.beside.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    return made


def _write_labels(native: Native, root: Path, fields: Fields, masks: Masks, *, spoilt: bool) -> None:
    for template, writer in native.labels.items():
        path = root / template.format(**fields)
        path.parent.mkdir(parents=True, exist_ok=True)
        writer(path, masks)
        if spoilt and native.spoil is not None:
            native.spoil(path)
