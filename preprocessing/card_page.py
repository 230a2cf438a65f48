"""`card.html`: what a dataset version is, for people; one file, no script, nothing fetched."""

from __future__ import annotations

import base64
import io
from collections import Counter
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template
from numpy.typing import NDArray
from PIL import Image

from preprocessing import ontology, schema
from preprocessing.cards import DatasetCard
from preprocessing.harmonize.payload import decode
from preprocessing.quality import Account
from preprocessing.schema import rle

_PICTURES = 6
_SIDE_PX = 320
_COLOURS = ((230, 60, 60), (50, 130, 240), (60, 190, 90), (240, 180, 40), (170, 80, 220), (40, 200, 200))


@cache
def _template() -> Template:
    loader = FileSystemLoader(Path(__file__).with_name("templates"))
    return Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True).get_template(
        "card.html"
    )


def card_page(
    card: DatasetCard, report: dict[str, Any], manifest: pa.Table, quarantine: pa.Table, account: Account, folder: Path
) -> str:
    """The page of a version whose shards lie in `folder`; equal versions give equal pages."""
    return _template().render(
        card=card,
        report=report,
        concepts=_by_concept(card, manifest),
        quarantine=quarantine.to_pylist(),
        not_data=sorted(Counter(account.not_data.values()).items()),
        pictures=_pictures(card, manifest, folder),
        splits=schema.SPLITS,
    )


def overlay(
    pixels: NDArray[np.uint8], objects: list[dict[str, Any]], colours: dict[str, tuple[int, int, int]]
) -> Image.Image:
    """The image with its masks tinted in the colour of their concept, thinned to about twice the shown size."""
    height, width = pixels.shape[:2]
    step = max(1, max(height, width) // (2 * _SIDE_PX))
    grey = pixels[::step, ::step]
    tinted = (grey if grey.ndim == 3 else np.repeat(grey[..., None], 3, axis=2)).astype(np.float32)
    for item in objects:
        x0, y0, x1, y1 = (-(-edge // step) for edge in item["bbox_xyxy"])  # hundreds of small objects: only their boxes
        mask = rle.decode(item["rle"], height, width)[::step, ::step][y0:y1, x0:x1]
        part = tinted[y0:y1, x0:x1]
        part[mask] = 0.55 * part[mask] + 0.45 * np.array(colours[item["concept"]], dtype=np.float32)
    return Image.fromarray(np.rint(tinted).astype(np.uint8))


def _by_concept(card: DatasetCard, manifest: pa.Table) -> list[dict[str, Any]]:
    """Samples with each concept by split, objects, and samples where it is known to be absent."""
    present: Counter[tuple[str, str]] = Counter()
    absent: Counter[str] = Counter()
    objects: Counter[str] = Counter()
    columns = manifest.select(["split", "objects", "absent"]).to_pylist()
    for row in columns:
        objects.update(item["concept"] for item in row["objects"])
        absent.update(row["absent"])
        present.update((concept, row["split"]) for concept in {item["concept"] for item in row["objects"]})
    return [
        {
            "name": concept,
            "prompts": ontology.prompts(concept, card.synonyms),
            "objects": objects[concept],
            "absent": absent[concept],
            **{split: present[concept, split] for split in schema.SPLITS},
        }
        for concept in card.concepts
    ]


def _pictures(card: DatasetCard, manifest: pa.Table, folder: Path) -> list[dict[str, str]]:
    """Overlays of a few samples with objects, each of another case while there are enough; chosen by content hash."""
    rows = manifest.select(["sample_id", "case_id", "objects", "content_sha256", "shard", "row"]).to_pylist()
    colours = {concept: _COLOURS[index % len(_COLOURS)] for index, concept in enumerate(card.concepts)}
    best: dict[str, dict[str, Any]] = {}
    for row in rows:
        if row["objects"]:
            area = sum(item["area"] for item in row["objects"])
            if row["case_id"] not in best or area > best[row["case_id"]]["area"]:
                best[row["case_id"]] = {**row, "area": area}
    chosen = sorted(best.values(), key=lambda row: str(row["content_sha256"]))[:_PICTURES]
    payloads = _payloads(folder, [(row["shard"], row["row"]) for row in chosen])
    pictures = []
    for row in sorted(chosen, key=lambda row: str(row["sample_id"])):
        image = overlay(decode(payloads[row["shard"], row["row"]]), row["objects"], colours)
        image.thumbnail((_SIDE_PX, _SIDE_PX))
        buffer = io.BytesIO()
        image.save(buffer, format="JPEG", quality=82)
        seen = ", ".join(sorted({item["concept"] for item in row["objects"]}))
        pictures.append(
            {
                "uri": "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode(),
                "name": row["sample_id"],
                "seen": seen,
            }
        )
    return pictures


def _payloads(folder: Path, places: list[tuple[str, int]]) -> dict[tuple[str, int], bytes]:
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
