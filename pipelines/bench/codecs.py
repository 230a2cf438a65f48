"""What a stored picture costs in each codec: bytes, and one thread's time to write it and to read it again.

On training samples of the demo's datasets, as a build stores them. JPEG that came as JPEG is the same in all
codecs and is left out; small slices are left to a line of their own, since there every call has a fixed cost.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipelines import plan
from pipelines.bench.contestants import KEY, build_params
from preprocessing.build import build_dataset
from preprocessing.cards import load_card
from preprocessing.export.rows import rows_of
from preprocessing.harmonize.payload import decode, encode
from preprocessing.inventory import scan
from preprocessing.schema.pixels import CODECS

Pixels = NDArray[np.uint8]
_SMALL_PX = 128 * 128
_MOST = 200  # pictures of a kind, drawn with a fixed seed


def measure(mirror: Path, scratch: Path, repetitions: int) -> list[dict[str, Any]]:
    """A row a kind and codec: {"kind", "codec", "pictures", "kb", "encode_ms", "decode_ms"}, means a picture.

    Times are the fastest of `repetitions` rounds over all pictures of the kind, codecs in turns.
    """
    kinds = _pictures(mirror, scratch)
    rows = []
    for kind, pictures in sorted(kinds.items()):
        times: dict[tuple[str, str], float] = {}
        sizes: dict[str, int] = {}
        for _ in range(repetitions + 1):
            for codec in CODECS:
                payloads = _timed(times, (codec, "encode"), partial(encode, codec=codec), pictures)
                _timed(times, (codec, "decode"), decode, payloads)
                sizes[codec] = sum(map(len, payloads))
        rows += [
            {
                "kind": kind,
                "codec": codec,
                "pictures": len(pictures),
                "kb": sizes[codec] / len(pictures) / 1e3,
                "encode_ms": 1e3 * times[codec, "encode"] / len(pictures),
                "decode_ms": 1e3 * times[codec, "decode"] / len(pictures),
            }
            for codec in CODECS
        ]
    return rows


def _timed(
    times: dict[tuple[str, str], float], name: tuple[str, str], step: Callable[[Any], Any], items: list[Any]
) -> list[Any]:
    begun = time.process_time()
    made = [step(item) for item in items]
    times[name] = min(times.get(name, float("inf")), time.process_time() - begun)
    return made


def _pictures(mirror: Path, scratch: Path) -> dict[str, list[Pixels]]:
    found: dict[str, list[Pixels]] = {}
    params = build_params()
    params["harmonize"] = {**params["harmonize"], "image_codec": "zstd"}
    for name in plan.project_params()["datasets"]:
        if not (mirror / name).is_dir():
            continue
        out = scratch / name
        build_dataset(
            load_card(name), mirror / name, scan(mirror / name, scratch / "hashes.json"), out, params,
            pseudonym_key=KEY, case_cache=None, source_kind="mirror",
        )  # fmt: skip
        for row in rows_of(out, "train"):
            if row["image_format"] != "jpeg":
                pixels = decode(row["image"])
                colour = "colour" if pixels.ndim == 3 else "grey"
                small = row["height"] * row["width"] < _SMALL_PX
                found.setdefault(f"{colour}, small slices" if small else colour, []).append(pixels)
    chance = random.Random(7)
    return {kind: chance.sample(pictures, min(_MOST, len(pictures))) for kind, pictures in found.items()}
