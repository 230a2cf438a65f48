"""Pictures of the data card: a few training samples of each concept, plain and with the truth, chosen by rule.

Only training and validation samples are shown: who looks at a card shall not have seen the test set.
"""

from __future__ import annotations

import base64
import hashlib
import io
import os
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray
from PIL import Image

from preprocessing.harmonize.payload import decode
from preprocessing.schema import rle

COLOURS = (
    (230, 60, 60), (50, 130, 240), (60, 190, 90), (240, 180, 40), (170, 80, 220), (40, 200, 200), (240, 120, 190),
    (150, 200, 50), (250, 120, 50), (110, 110, 230), (180, 140, 100), (120, 220, 170),
)  # fmt: skip
_MOST_PICTURES, _PER_CONCEPT = 24, 3
_SIDE_PX = 300
_MOST_BYTES = 1_000_000  # of all pictures as text, so that a card stays below 1.5 MB
_SHOWN = ("train", "val")
THREADS = min(4, os.cpu_count() or 1)  # each holds one decoded picture


def colours_of(concepts: tuple[str, ...]) -> dict[str, tuple[int, int, int]]:
    """A colour for each concept; they repeat after a dozen."""
    return {concept: COLOURS[index % len(COLOURS)] for index, concept in enumerate(concepts)}


def pictures(concepts: tuple[str, ...], manifest: pa.Table, folder: Path) -> list[dict[str, Any]]:
    """Up to three samples of each concept, fewer where there are many: {"uri", "name", "split", "seen"}.

    Each is one JPEG: the image on the left, the same with its masks tinted on the right.
    """
    places = _chosen(concepts, manifest)
    rows = (
        manifest.select(["sample_id", "split", "objects", "spacing_mm_yx", "shard", "row"])
        .take(pa.array(places, pa.int64()))
        .to_pylist()
    )
    payloads = payloads_at(folder, [(row["shard"], row["row"]) for row in rows])
    colours, made, size = colours_of(concepts), [], 0

    def drawn(row: dict[str, Any]) -> str:
        pixels = decode(payloads[row["shard"], row["row"]])
        return _jpeg(beside(pixels, row["objects"], colours, row["spacing_mm_yx"]))

    with ThreadPoolExecutor(THREADS) as pool:
        uris = list(pool.map(drawn, rows))
    for row, uri in zip(rows, uris, strict=True):
        size += len(uri)
        if size > _MOST_BYTES:
            break
        seen = sorted({item["concept"] for item in row["objects"]})
        made.append({"uri": uri, "name": row["sample_id"], "split": row["split"], "seen": seen})
    return made


def beside(
    pixels: NDArray[np.uint8],
    objects: list[dict[str, Any]],
    colours: dict[str, tuple[int, int, int]],
    spacing_mm_yx: list[float] | None,
) -> Image.Image:
    """The image and, beside it, the image with its masks, each about `_SIDE_PX` wide or high, in true proportions."""
    height, width = pixels.shape[:2]
    step = max(1, max(height, width) // (2 * _SIDE_PX))
    thin = pixels[::step, ::step]
    plain = (thin if thin.ndim == 3 else np.repeat(thin[..., None], 3, axis=2)).astype(np.float32)
    tinted = plain.copy()
    for item in objects:
        x0, y0, x1, y1 = (-(-edge // step) for edge in item["bbox_xyxy"])  # hundreds of small objects: only their boxes
        mask = rle.decode(item["rle"], height, width)[::step, ::step][y0:y1, x0:x1]
        part = tinted[y0:y1, x0:x1]
        part[mask] = 0.5 * part[mask] + 0.5 * np.array(colours[item["concept"]], dtype=np.float32)
    size = _shown_size(height, width, spacing_mm_yx)
    canvas = Image.new("RGB", (2 * size[0] + 4, size[1]), (18, 22, 28))
    for place, panel in enumerate((plain, tinted)):
        image = Image.fromarray(np.rint(panel).astype(np.uint8))
        resample = Image.Resampling.NEAREST if image.width * 2 < size[0] else Image.Resampling.BILINEAR
        canvas.paste(image.resize(size, resample), (place * (size[0] + 4), 0))
    return canvas


def _shown_size(height: int, width: int, spacing_mm_yx: list[float] | None) -> tuple[int, int]:
    """Width and height in pixels of the page, with pixels that are not square stretched to what they measure."""
    tall, wide = (height * spacing_mm_yx[0], width * spacing_mm_yx[1]) if spacing_mm_yx else (height, width)
    scale = _SIDE_PX / max(tall, wide)
    return max(8, round(wide * scale)), max(8, round(tall * scale))


def payloads_at(folder: Path, places: list[tuple[str, int]]) -> dict[tuple[str, int], bytes]:
    """The images at some (shard, row): each row group that holds one is read once, the others never."""
    found: dict[tuple[str, int], bytes] = {}
    for shard in sorted({shard for shard, _ in places}):
        wanted = {row for name, row in places if name == shard}
        start = 0
        with pq.ParquetFile(folder / shard) as file:
            for group in range(file.num_row_groups):
                end = start + file.metadata.row_group(group).num_rows
                if inside := [row for row in wanted if start <= row < end]:
                    images = file.read_row_group(group, columns=["image"]).column("image")
                    found.update({(shard, row): images[row - start].as_py() for row in inside})
                start = end
    return found


def _chosen(concepts: tuple[str, ...], manifest: pa.Table) -> list[int]:
    """Manifest rows to show: for each concept the largest slice of a few cases, cases in the order of a hash."""
    objects = manifest.column("objects").combine_chunks()
    parents = pc.list_parent_indices(objects).to_numpy()
    flat = pc.list_flatten(objects)
    coded = flat.field("concept").dictionary_encode()  # numbers compare faster than a million names
    codes, known = coded.indices.to_numpy(zero_copy_only=False), coded.dictionary.to_pylist()
    areas = flat.field("area").to_numpy()
    splits = np.asarray(manifest.column("split").to_pylist(), dtype=object)
    cases = np.asarray(manifest.column("case_id").to_pylist(), dtype=object)
    wanted = max(1, min(_PER_CONCEPT, _MOST_PICTURES // max(1, len(concepts))))
    chosen: list[int] = []
    shown: Counter[str] = Counter()
    for concept in concepts:
        if shown[concept] >= wanted or len(chosen) >= _MOST_PICTURES:
            continue
        own = codes == known.index(concept) if concept in known else np.zeros(len(codes), dtype=bool)
        area = np.bincount(parents[own], weights=areas[own], minlength=manifest.num_rows)
        by_split = [np.flatnonzero((area > 0) & (splits == split)).tolist() for split in _SHOWN]
        best: dict[str, int] = {}
        for row in next(filter(None, by_split), []):
            if cases[row] not in best or area[row] > area[best[cases[row]]]:
                best[cases[row]] = int(row)
        ordered = sorted(best, key=lambda case: hashlib.sha256(f"{concept} {case}".encode()).digest())
        fresh = [best[case] for case in ordered if best[case] not in chosen]
        for row in fresh[: wanted - shown[concept]]:
            chosen.append(row)
            shown.update({known[code] for code in set(codes[parents == row].tolist())})
    return chosen[:_MOST_PICTURES]


def _jpeg(image: Image.Image) -> str:
    buffer = io.BytesIO()
    image.save(buffer, format="JPEG", quality=78, optimize=True)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
