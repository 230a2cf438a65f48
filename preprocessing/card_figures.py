"""Figures of the data card: counts by concept, and histograms of spacing, intensity and object size."""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import ArrayLike, NDArray

from preprocessing import ontology, schema
from preprocessing.card_pictures import THREADS, payloads_at
from preprocessing.harmonize.payload import decode

_MOST_BINS = 12
_INTENSITY_SAMPLES = 48  # decoded for the histogram; the choice is by hash
_INTENSITY_BINS = 32
_INTENSITY_SIDE_PX = 512  # of larger samples every second, third, … row and column counts


@dataclass(frozen=True)
class Histogram:
    """Bars of one figure. `labels` name the lower edge of each bin, and `last` the upper edge of the last."""

    title: str
    counts: tuple[int, ...]
    labels: tuple[str, ...]
    last: str
    said: str

    @property
    def highest(self) -> int:
        """The tallest bar, at least 1."""
        return max(1, *self.counts)


def by_concept(
    concepts: tuple[str, ...], manifest: pa.Table, own: Mapping[str, tuple[str, ...]] | None = None
) -> list[dict[str, Any]]:
    """Samples with each concept by split, objects, and samples where it is known to be absent."""
    present: Counter[tuple[str, str]] = Counter()
    absent: Counter[str] = Counter()
    objects: Counter[str] = Counter()
    for batch in manifest.select(["split", "objects", "absent"]).to_batches(max_chunksize=16_384):
        splits = batch.column("split").to_pylist()
        parents = pc.list_parent_indices(batch.column("objects")).to_pylist()
        names = pc.list_flatten(batch.column("objects")).field("concept").to_pylist()
        objects.update(names)
        present.update((name, splits[parent]) for parent, name in set(zip(parents, names, strict=True)))
        absent.update(pc.list_flatten(batch.column("absent")).to_pylist())
    return [
        {
            "name": concept,
            "prompts": ontology.prompts(concept, own or {}),
            "objects": objects[concept],
            "absent": absent[concept],
            **{split: present[concept, split] for split in schema.SPLITS},
        }
        for concept in concepts
    ]


def histograms(manifest: pa.Table, cases: pa.Table, folder: Path) -> list[Histogram]:
    """Spacing by case, image and object size by sample, grey levels of some training samples; none of nothing."""
    if not manifest.num_rows:
        return []
    spacing = [value for value in cases.column("harmonized_spacing_mm_xyz").to_pylist() if value]
    made = []
    if spacing:
        array = np.array(spacing)
        made += [_of(f"Spacing {name}, mm", array[:, axis], f"{len(array)} volumes") for axis, name in enumerate("xyz")]
    sides = [np.asarray(manifest.column(name).to_numpy()) for name in ("width", "height")]
    made.append(_of("Longer side, pixels", np.maximum(*sides), f"{manifest.num_rows} samples"))
    areas = pc.list_flatten(manifest.column("objects").combine_chunks()).field("area").to_numpy()
    if areas.size:
        made.append(_of_powers("Object size, pixels", areas, f"{areas.size} objects"))
    grey = _intensity(manifest, folder)
    return [*made, grey] if grey else made


def _of(title: str, values: ArrayLike, said: str) -> Histogram:
    """Bins of a round width; a single value is one bar."""
    array = np.round(np.asarray(values, dtype=float), 4)
    low, high = float(array.min()), float(array.max())
    if low == high:
        return Histogram(title, (array.size,), (_text(low),), "", f"{said}, all {_text(low)}")
    width = _round_up((high - low) / _MOST_BINS)
    first = math.floor(low / width + 1e-9)
    count = math.floor(high / width + 1e-9) - first + 1
    index = np.clip(np.floor(array / width + 1e-9).astype(int) - first, 0, count - 1)
    edges = [round((first + step) * width, 6) for step in range(count + 1)]
    median = _text(float(np.median(array)))
    return Histogram(
        title,
        tuple(np.bincount(index, minlength=count).tolist()),
        tuple(map(_text, edges[:-1])),
        _text(edges[-1]),
        f"{said}, {_text(low)} to {_text(high)}, median {median}",
    )


def _of_powers(title: str, values: ArrayLike, said: str) -> Histogram:
    """Bins that double: object sizes go over five orders of magnitude."""
    array = np.asarray(values, dtype=np.int64)
    power = np.floor(np.log2(array)).astype(int)
    first, last = int(power.min()), int(power.max())
    edges = [2**exponent for exponent in range(first, last + 2)]
    return Histogram(
        title,
        tuple(np.bincount(power - first, minlength=last - first + 1).tolist()),
        tuple(map(str, edges[:-1])),
        str(edges[-1]),
        f"{said}, {array.min()} to {array.max()}, median {_text(float(np.median(array)))}; each bin doubles",
    )


def _intensity(manifest: pa.Table, folder: Path) -> Histogram | None:
    """Grey levels after the card's rule, of a few training samples; colours are averaged."""
    table = manifest.select(["sample_id", "split", "shard", "row"])
    table = table.filter(pc.equal(table.column("split"), "train"))
    if not table.num_rows:
        return None
    # Samples of few row groups, which are read as a whole: of a large set not everything is decompressed.
    rows = table.to_pylist()
    groups = sorted({(row["shard"], row["row"] // 64) for row in rows}, key=_rank)[:8]
    near = [row for row in rows if (row["shard"], row["row"] // 64) in set(groups)]
    chosen = sorted(near, key=lambda row: _rank(row["sample_id"]))[:_INTENSITY_SAMPLES]
    payloads = payloads_at(folder, [(row["shard"], row["row"]) for row in chosen])
    with ThreadPoolExecutor(THREADS) as pool:  # decoders release the interpreter
        counts = sum(pool.map(_grey_levels, payloads.values()), np.zeros(_INTENSITY_BINS, dtype=np.int64))
    labels = tuple(str(value) for value in range(0, 256, 256 // _INTENSITY_BINS))
    # per mille of all pixels: images differ in size, shares can be compared between datasets
    shares = tuple(round(1000 * int(count) / int(counts.sum())) for count in counts)
    said = f"‰ of the pixels of {len(chosen)} of {table.num_rows} training samples"
    return Histogram("Grey level, 8 bits", shares, labels, "256", said)


def _grey_levels(payload: bytes) -> NDArray[np.int64]:
    """Histogram of a picture's grey levels, colours averaged; of a large JPEG at a reduced size, as it decodes."""
    pixels = decode(payload, enough_px=_INTENSITY_SIDE_PX)
    step = max(1, max(pixels.shape[:2]) // _INTENSITY_SIDE_PX)
    pixels = pixels[::step, ::step]
    if pixels.ndim == 3:  # channel by channel: a sum over an axis of three is twenty times slower
        total = pixels[..., 0].astype(np.uint16)
        total += pixels[..., 1]
        total += pixels[..., 2]
        pixels = (total // 3).astype(np.uint8)
    levels: NDArray[np.int64] = np.bincount(pixels.ravel(), minlength=256).reshape(_INTENSITY_BINS, -1).sum(axis=1)
    return levels


def _rank(value: Any) -> bytes:
    return hashlib.sha256(repr(value).encode()).digest()


def _round_up(width: float) -> float:
    """The next of 1, 2, 5 × a power of ten."""
    power = 10.0 ** math.floor(math.log10(width))
    return float(next(step * power for step in (1, 2, 5, 10) if step * power >= width - 1e-12))


def _text(value: float) -> str:
    return f"{value:.4g}" if value != int(value) else str(int(value))
