"""Memory is bounded by the largest case and not by the dataset: many cases under a limit that they exceed together."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import SimpleITK as sitk

FEW, MANY, DEPTH, SIDE = 72, 168, 24, 256
_BUILD = """
import sys
from pathlib import Path
from preprocessing.build import build_dataset
from preprocessing.inventory import scan
from tests.preprocessing.test_build import DEEP, PARAMS

def peak():
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))

root, out = Path(sys.argv[1]), Path(sys.argv[2])
params = {**PARAMS, "shards": {"target_bytes": 2_000_000}}
files = scan(root, out / "hashes.json")
before = peak()
report = build_dataset(DEEP, root, files, out / "data", params, pseudonym_key=b"k", case_cache=out / "cases",
                       source_kind="mirror")
print(report["counts"]["samples"], sum(path.stat().st_size for path in (out / "data").glob("shard-*")), peak() - before)
"""


def _noise(folder: Path, seed: int) -> None:
    folder.mkdir(parents=True)
    rng = np.random.default_rng(seed)
    image = sitk.GetImageFromArray(rng.integers(0, 1000, (DEPTH, SIDE, SIDE)).astype(np.int16))
    label = np.zeros((DEPTH, SIDE, SIDE), dtype=np.uint8)
    label[2:9, 20:90, 30:80] = 1
    sitk.WriteImage(image, str(folder / "image.nii.gz"), useCompression=True, compressionLevel=1)
    sitk.WriteImage(sitk.GetImageFromArray(label), str(folder / "label.nii.gz"))


def _built(tmp_path: Path, cases: int) -> tuple[int, int, int]:
    """(samples, bytes of all shards, bytes by which the build raised its process's peak)."""
    root, out = tmp_path / f"raw{cases}", tmp_path / f"out{cases}"
    out.mkdir()
    for number in range(cases):
        _noise(root / f"case{number:02d}", number)
    command = [sys.executable, "-c", _BUILD, str(root), str(out)]
    done = subprocess.run(command, check=True, text=True, stdout=subprocess.PIPE, cwd=Path(__file__).parents[2])
    samples, size, peak = (int(value) for value in done.stdout.split())
    return samples, size, peak


def test_many_cases_need_no_more_memory_than_a_few(tmp_path: Path) -> None:
    # a few are enough for the largest shard, for all pictures of the card and for what allocators keep: up to 72 cases
    # the peak grows by some tens of megabytes, to 288 hardly any more. What comes on top are rows without pixels
    few, many = _built(tmp_path, FEW), _built(tmp_path, MANY)
    assert (few[0], many[0]) == (FEW * DEPTH, MANY * DEPTH)
    more_payload = many[1] - few[1]
    assert more_payload > 140_000_000
    assert many[2] - few[2] < more_payload / 2, "the payload of all cases was in memory at once"
