from __future__ import annotations

import hashlib
from collections import Counter
from pathlib import Path

import pytest
import torch

from training.bench_pictures import find_pictures, write_pictures, write_version
from training.decode import decode_image
from training.loader_bench import batches, reads, table
from training.loader_peers import read_webdataset, timed, write_webdataset

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


def test_a_peer_gives_the_same_pictures(folder: Path, wanted: Counter[str]) -> None:
    write_webdataset(folder)
    given = read_webdataset(folder, 0, 16)
    assert Counter(_digest(picture) for batch in given for picture in batch) == wanted


def test_what_is_measured_is_what_the_table_says(folder: Path) -> None:
    result = timed(batches(folder / "png", 2, SAMPLES, size_px=SIZE_PX))
    assert result["samples"] == SAMPLES
    assert result["seconds"] > 0
    read = reads(folder / "png", 64)
    alone = [row["read_per_used"] for row in read if row["ranks"] == 1]
    assert all(1 <= ratio < 1.5 for ratio in alone)
    text = table(
        {
            "samples": SAMPLES,
            "size_px": SIZE_PX,
            "kb_a_picture": 3.0,
            "source": "drawn",
            "cores": 2,
            "cpu": "a CPU",
            "repeats": 1,
            "rows": [
                {
                    "loader": "ours",
                    "codec": "zstd",
                    "helpers": 2,
                    "samples_per_s": 1234.0,
                    "lowest": 1200.0,
                    "highest": 1300.0,
                    "cpu_ms": 0.81,
                    "peak_mb": 400,
                }
            ],
            "reads": read,
            "ratios": {"zstd": 2.5},
        }
    )
    assert "| ours | zstd | 2 threads | 1234 | 1200 – 1300 | 0.81 | 400 |" in text
    assert "2.50 with zstd" in text
