"""What a second build costs: nothing new, and one case added to a thousand; work is counted."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from infra.storage import sha256_file
from pipelines.bench.contestants import KEY, build_params
from preprocessing.build import build_dataset
from preprocessing.cards import Binary, DatasetCard, Layout, Licence
from preprocessing.inventory import scan
from preprocessing.schema import DATASET_FILE

CASES = 1_000
SIDE_PX = 256
SHARD_BYTES = 1 << 20  # small, so that a thousand small cases lie in as many shards as a real dataset's
CARD = DatasetCard(
    name="bench_remembered",
    title="Discs on noise",
    modality="ultrasound",
    licence=Licence("made up"),
    citation="nobody",
    homepage="",
    layout_checked="made here",
    layouts=(Layout(image=r"images/(?P<case>[^/]+)\.png", label=r"masks/(?P<case>[^/]+)\.png"),),
    labels=Binary("polyp"),
    searched=("polyp",),
)


def measure(scratch: Path, cases: int = CASES) -> list[dict[str, Any]]:
    """{"what", "cases_read", "shards_made", "shards_changed", "shards", "seconds"} of three builds in a row."""
    root = scratch / "raw"
    shutil.rmtree(scratch, ignore_errors=True)
    for number in range(cases):
        draw(root, number)
    rows = [_build(f"all {cases:,} cases, nothing remembered", root, scratch)]
    rows.append(_build("the same again", root, scratch))
    draw(root, cases)
    rows.append(_build(f"1 case added to {cases:,}", root, scratch))
    return rows


def draw(root: Path, number: int) -> None:
    """One image and its mask."""
    rng = np.random.default_rng(number)
    for folder in ("images", "masks"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    y, x = np.mgrid[:SIDE_PX, :SIDE_PX]
    centre, radius = rng.integers(60, SIDE_PX - 60, 2), int(rng.integers(10, 50))
    disc = (y - centre[0]) ** 2 + (x - centre[1]) ** 2 < radius**2
    noise = rng.integers(0, 120, (SIDE_PX, SIDE_PX)) + 100 * disc
    Image.fromarray(noise.astype(np.uint8)).save(root / "images" / f"case{number:05d}.png", compress_level=1)
    Image.fromarray(disc.astype(np.uint8) * 255).save(root / "masks" / f"case{number:05d}.png", compress_level=1)


def _build(what: str, root: Path, scratch: Path) -> dict[str, Any]:
    out, read = scratch / "data", 0

    def counting(function: Callable[[Any], Any], items: Iterable[Any]) -> Iterator[Any]:
        nonlocal read
        for item in items:
            read += 1
            yield function(item)

    before = _shards(out)
    begun = time.monotonic()
    report = build_dataset(
        CARD,
        root,
        scan(root, scratch / "hashes.json"),
        out,
        {**build_params(), "shards": {"target_bytes": SHARD_BYTES}},
        pseudonym_key=KEY,
        case_cache=scratch / "cases",
        map_cases=counting,
        source_kind="mirror",
    )
    seconds = time.monotonic() - begun
    after = _shards(out)
    return {
        "what": what,
        "cases_read": read,
        "shards_made": len(after) - report["reused_shards"],
        "shards_changed": sum(before.get(name) != digest for name, digest in after.items()),
        "shards": len(after),
        "seconds": round(seconds, 3),
        "complete": (out / DATASET_FILE).is_file(),
    }


def _shards(folder: Path) -> dict[str, str]:
    return {path.name: sha256_file(path) for path in folder.glob("shard-*.parquet")}
