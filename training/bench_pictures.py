"""What the loader bench reads: pictures found or drawn, encoded once, as files and as a dataset version."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from preprocessing import schema
from preprocessing.schema import pixels
from training.decode import Pixels, decode_image

_ENDINGS = {".png", ".jpg", ".jpeg"}
_MOST_FILES = 500  # pictures looked at; further orientations of them make up the rest
_SHARD_ROWS, _GROUP_ROWS = 400, 64


def find_pictures(data: Path | None) -> Iterator[Pixels]:
    """(height, width, channels) uint8 from shards below `data`, else from picture files, else drawn; at least one."""
    if data is None:
        yield from (draw_picture(number) for number in range(64))
        return
    shards = sorted(data.rglob("shard-*.parquet"))
    if shards:
        for shard in shards:
            with pq.ParquetFile(shard) as file:
                for payload in file.read_row_group(0, columns=["image"]).column("image"):
                    yield decode_image(payload.as_py())
        return
    files = sorted(path for path in data.rglob("*") if path.suffix.lower() in _ENDINGS)
    step = max(1, len(files) // _MOST_FILES)
    for path in files[::step]:
        yield decode_image(path.read_bytes())


def draw_picture(number: int, size_px: int = 512) -> Pixels:
    """Smooth shading and soft-edged ellipses, without noise: (size, size, 3) uint8, a function of `number`."""
    draw = np.random.default_rng(number)
    y, x = np.mgrid[:size_px, :size_px] / size_px
    layers = []
    for _ in range(3):
        waves = draw.normal(0, 1, (6, 2)) * 4
        phases = draw.uniform(0, 2 * np.pi, 6)
        layers.append(sum(np.sin(a * x + b * y + c) for (a, b), c in zip(waves, phases, strict=True)) / 6)
    for _ in range(30):
        cx, cy = draw.uniform(0, 1, 2)
        rx, ry = draw.uniform(0.02, 0.2, 2)
        edge = np.clip((1 - np.hypot((x - cx) / rx, (y - cy) / ry)) * 20, 0, 1)
        layers = [layer + edge * draw.uniform(-0.6, 0.6) for layer in layers]
    picture: Pixels = np.clip(np.stack(layers, axis=-1) * 80 + 128, 0, 255).astype(np.uint8)
    return picture


def write_pictures(pictures: Iterator[Pixels], folder: Path, samples: int, size_px: int) -> list[bytes]:
    """`samples` PNG files of (size, size), RGB and grey in turn; return their bytes.

    ValueError where no picture is found.
    """
    folder.mkdir(parents=True)
    found = [_square(picture, size_px) for picture, _ in zip(pictures, range(samples), strict=False)]
    if not found:
        msg = "expected pictures (.png, .jpg) or shards below the folder given by --data, found none"
        raise ValueError(msg)
    encoded = []
    for number in range(samples):
        picture = found[number % len(found)]
        turn = number // len(found) % 8
        if turn:
            # the eight orientations of a square: other bytes for the decoder, the same kind of picture
            picture = picture.transpose(Image.Transpose.TRANSPOSE) if turn & 1 else picture
            picture = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if turn & 2 else picture
            picture = picture.transpose(Image.Transpose.FLIP_TOP_BOTTOM) if turn & 4 else picture
        buffer = io.BytesIO()
        picture.convert("L" if number % 2 else "RGB").save(buffer, format="PNG", compress_level=1)
        (folder / f"{number:06d}.png").write_bytes(buffer.getvalue())
        encoded.append(buffer.getvalue())
    return encoded


def encode(png: bytes, codec: str) -> bytes:
    """A picture in another codec of `preprocessing.schema.pixels.CODECS`, without loss."""
    if codec == "png":
        return png
    array = pixels.decode(png)
    if codec == "zstd":
        return pixels.zstd_payload(array)
    import imagecodecs  # not on every machine that trains

    return bytes(imagecodecs.htj2k_encode(array))


def write_files(folder: Path, encoded: list[bytes], codec: str) -> None:
    """The PNG pictures in another codec, a file each: what a public loader is filled from."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, payload in enumerate(encoded):
        (folder / f"{number:06d}.{codec}").write_bytes(encode(payload, codec))


def write_version(root: Path, encoded: list[bytes], size_px: int, codec: str = "png") -> None:
    """A dataset version `bench` below `root` with these PNG pictures in a codec, all in train and without objects."""
    folder = root / "bench"
    folder.mkdir(parents=True)
    rows = [_row(number, encode(payload, codec), size_px, codec) for number, payload in enumerate(encoded)]
    listed: dict[str, dict[str, Any]] = {}
    manifest: list[dict[str, Any]] = []
    for number, start in enumerate(range(0, len(rows), _SHARD_ROWS)):
        own = rows[start : start + _SHARD_ROWS]
        file = folder / f"shard-{number:05d}.parquet"
        pq.write_table(
            pa.Table.from_pylist(own, schema=schema.SHARD_SCHEMA),
            file,
            row_group_size=_GROUP_ROWS,
            compression="zstd",
            compression_level=1,
            use_dictionary=["dataset", "modality", "split"],
        )
        listed[file.name] = {"sha256": hashlib.sha256(file.read_bytes()).hexdigest(), "rows": len(own)}
        for place, row in enumerate(own):
            manifest.append({**{k: v for k, v in row.items() if k != "image"}, "shard": file.name, "row": place})
    pq.write_table(pa.Table.from_pylist(manifest, schema=schema.MANIFEST_SCHEMA), folder / schema.MANIFEST_FILE)
    (folder / schema.DATASET_FILE).write_text(json.dumps({"shards": listed}))


def _row(number: int, payload: bytes, size_px: int, codec: str) -> dict[str, Any]:
    name = f"{number:06d}"
    return {
        "sample_id": f"bench/{name}",
        "dataset": "bench",
        "case_id": name,
        "group_id": name,
        "modality": "mixed",
        "split": "train",
        "height": size_px,
        "width": size_px,
        "image": payload,
        "image_format": codec,
        "objects": [],
        "absent": [],
        "source": [],
        "content_sha256": hashlib.sha256(payload).hexdigest(),
        "recipe_sha256": "",
    }


def _square(picture: Pixels, size_px: int) -> Image.Image:
    image = Image.fromarray(picture if picture.shape[-1] == 3 else np.repeat(picture, 3, axis=-1))
    return image.resize((size_px, size_px), Image.Resampling.BICUBIC)
