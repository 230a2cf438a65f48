from __future__ import annotations

import hashlib
from collections import Counter
from pathlib import Path

import pytest
import torch

from training.bench_pictures import find_pictures, write_files, write_pictures, write_version
from training.decode import decode_image
from training.loader_bench import OURS, Run, batches, ratios_of, reads, rows_of, table
from training.loader_peers import DECODERS, _payloads, read_webdataset, timed, write_webdataset

SAMPLES, SIZE_PX = 70, 64


def _digest(picture: torch.Tensor) -> str:
    return hashlib.sha256(picture.numpy().tobytes()).hexdigest()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bench")
    encoded = write_pictures(find_pictures(None), folder / "png", SAMPLES, SIZE_PX)
    for codec in ("png", "htj2k", "zstd"):
        write_version(folder / codec / "version", encoded, SIZE_PX, codec)
    return folder


@pytest.fixture(scope="module")
def wanted(folder: Path) -> Counter[str]:
    """Every picture once, as the pixels of its file."""
    found = [decode_image(path.read_bytes()) for path in sorted((folder / "png").glob("*.png"))]
    planes = [torch.from_numpy(picture.copy()).permute(2, 0, 1).expand(3, -1, -1).contiguous() for picture in found]
    return Counter(map(_digest, planes))


@pytest.mark.parametrize("codec", ["png", "htj2k", "zstd"])
@pytest.mark.parametrize("threads", [0, 2])
def test_ours_gives_every_picture_once_in_every_codec(
    folder: Path, wanted: Counter[str], codec: str, threads: int
) -> None:
    given = batches(folder / codec, threads, SAMPLES, size_px=SIZE_PX)
    # a batch is looked at before its buffer is used again
    assert Counter(_digest(picture) for batch in given for picture in batch) == wanted


@pytest.mark.parametrize(("codec", "decoder"), [("png", "pillow"), ("png", "imagecodecs"), ("htj2k", "imagecodecs")])
def test_a_peer_gives_the_same_pictures(folder: Path, wanted: Counter[str], codec: str, decoder: str) -> None:
    write_files(folder / codec, [path.read_bytes() for path in sorted((folder / "png").glob("*.png"))], codec)
    shards = folder / f"webdataset-{codec}-{decoder}"
    write_webdataset(_payloads(folder, codec), shards)
    given = read_webdataset(shards, DECODERS[decoder], 0, 16)
    assert Counter(_digest(picture) for batch in given for picture in batch) == wanted


def test_what_is_measured_is_what_the_table_says(folder: Path) -> None:
    result = timed(batches(folder / "png", 2, SAMPLES, size_px=SIZE_PX))
    assert result["samples"] == SAMPLES
    assert result["seconds"] > 0
    read = reads(folder / "png", 64)
    alone = [row["read_per_used"] for row in read if row["ranks"] == 1]
    assert all(1 <= ratio < 1.5 for ratio in alone)
    rounds = {
        Run(OURS, 0, "python", "zstd"): (100, 100, 100),
        Run(OURS, 2, "python", "zstd"): (800, 900, 1000),
        Run(OURS, 2, "python", "png"): (300, 300, 300),
        Run("webdataset", 2, "python", "png", "pillow"): (200, 500, 400),
    }
    measured = {
        run: [
            {"samples": SAMPLES, "seconds": SAMPLES / rate, "cpu_seconds": 0.5e-3 * SAMPLES, "peak_bytes": 4e8}
            for rate in rates
        ]
        for run, rates in rounds.items()
    }
    text = table(
        {
            "samples": SAMPLES,
            "size_px": SIZE_PX,
            "kb_a_picture": 3.0,
            "source": "drawn",
            "cores": 2,
            "cpu": "a CPU",
            "repeats": 1,
            "load_before": 1.25,
            "load_after": 2.0,
            "missing": ["litdata"],
            "rows": rows_of(measured),
            "reads": read,
            "ratios": ratios_of(measured, ["png", "zstd"]),
        }
    )
    assert "| ours | zstd | 2 threads | 900 | 800 – 1000 | 0.50 | 400 |" in text
    assert "| webdataset | png, pillow | 2 workers | 400 | 200 – 500 | 0.50 | 400 |" in text
    # 800 / 200, 900 / 500 and 1000 / 400: each of the same round
    assert "| zstd | png, pillow | 2.50 × | 1.80 – 4.00 |" in text
    assert "not measured: litdata" in text
