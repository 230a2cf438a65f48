"""Questions to a manifest of many rows: each in a process of its own, whose seconds and peak memory are reported.

The manifests are made up (no pixels stand behind them) and written in blocks, in the order and with the writer
of a real one: sorted by sample, 20 slices a case.
"""

from __future__ import annotations

import hashlib
import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from infra.errors import ServiceError
from preprocessing import schema

SLICES = 20
BLOCK = 131_072
TARGET_S, TARGET_BYTES = 3.0, 4 << 30
LIMIT_S, LIMIT_BYTES = 120, 8 << 30
QUESTIONS = {
    "split counts": "splits",
    "rows of one case": "case",
    "diff, 0.1 % of the rows changed": "diff",
}


def measure(rows: int, scratch: Path, repetitions: int) -> list[dict[str, Any]]:
    """{"question", "rows", "file_bytes", "seconds": […], "median_s", "peak_bytes", "answer", "met"} for each question.

    One that needs more than `LIMIT_BYTES` or `LIMIT_S` is stopped before it harms the machine: it has "failed" in
    place of figures, and is not met.
    """
    old, new = scratch / "old.parquet", scratch / "new.parquet"
    scratch.mkdir(parents=True, exist_ok=True)
    write(old, rows, changed=False)
    write(new, rows, changed=True)
    found = []
    for title, question in QUESTIONS.items():
        row: dict[str, Any] = {"question": title, "rows": rows, "file_bytes": old.stat().st_size, "met": False}
        try:
            runs = [_asked(question, old, new, rows) for _ in range(repetitions)]
        except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
            found.append({**row, "failed": f"stopped: {_why(error)}"})
            continue
        seconds = sorted(run["seconds"] for run in runs)
        median, peak = statistics.median(seconds), max(run["peak_bytes"] for run in runs)
        row.update(seconds=seconds, median_s=median, peak_bytes=peak, answer=runs[0]["answer"])
        found.append({**row, "met": median <= TARGET_S and peak <= TARGET_BYTES})
    old.unlink()
    new.unlink()
    return found


def write(path: Path, rows: int, *, changed: bool) -> None:
    """A manifest of rows 0 to `rows`, of which every 1,000th differs between the two, each time in another way.

    With `changed` it has other pixels, another split, or no object; or it is there in only one of the two.
    """
    with pq.ParquetWriter(
        path,
        schema.MANIFEST_SCHEMA,
        compression="zstd",
        compression_level=1,
        use_dictionary=["dataset", "case_id", "group_id", "modality", "split", "axis", "image_format",
                        "recipe_sha256", "shard"],
        version="2.6",
    ) as writer:  # fmt: skip
        for start in range(0, rows, BLOCK):
            writer.write_table(_block(np.arange(start, min(start + BLOCK, rows)), changed=changed))


def _block(numbers: np.ndarray[Any, np.dtype[np.int64]], *, changed: bool) -> pa.Table:
    differs = numbers % 1000 == 7
    kind = (numbers // 1000) % 5  # 0 other pixels, 1 another split, 2 no object, 3 new there alone, 4 old there alone
    kept = ~(differs & (kind == (4 if changed else 3)))
    random = np.random.default_rng(int(numbers[0]))
    content, pixels, labels = (_random_bytes(random, len(numbers), width)[kept] for width in (32, 16, 16))
    numbers, differs, kind = numbers[kept], differs[kept], kind[kept]
    count = len(numbers)
    case, index = numbers // SLICES, numbers % SLICES
    touched = differs & changed
    content = content ^ (touched & ((kind == 0) | (kind == 2))).astype(np.uint8)[:, None]
    pixels = pixels ^ (touched & (kind == 0)).astype(np.uint8)[:, None]
    labels = labels ^ (touched & (kind == 2)).astype(np.uint8)[:, None]
    split = np.where(case % 20 < 14, 0, np.where(case % 20 < 17, 1, 2))
    split = np.where(touched & (kind == 1), (split + 1) % 3, split)
    objects = np.where(touched & (kind == 2), 0, index % 4 != 0).astype(np.int64)
    name = _text("case", case, 8)
    ones = np.arange(count + 1, dtype=np.int32)
    of_case = np.frombuffer(np.random.default_rng(1).bytes(32 * 1024), dtype=np.uint8).reshape(1024, 32)
    source = [pc.binary_join_element_wise("images/", name, ".nii.gz", ""), _hex(of_case[case % 1024])]
    columns = {
        "sample_id": pc.binary_join_element_wise("made_up/", name, _text("/z", index, 4), ""),
        "dataset": _same("made_up", count),
        "case_id": name,
        "group_id": _text("g-", case, 20),
        "modality": _same("CT", count),
        "split": pa.array(schema.SPLITS).take(pa.array(split)),
        "axis": _same("z", count),
        "slice_index": pa.array(index.astype(np.int32)),
        "height": pa.array(np.full(count, 512, dtype=np.int32)),
        "width": pa.array(np.full(count, 512, dtype=np.int32)),
        "spacing_mm_yx": pa.ListArray.from_arrays(2 * ones, pa.array(np.full(2 * count, 0.75))),
        "image_format": _same("png", count),
        "objects": pa.ListArray.from_arrays(_offsets(objects), _objects(numbers[objects > 0])),
        "absent": pa.ListArray.from_arrays(_offsets(1 - objects), _same("liver", count - int(objects.sum()))),
        "source": pa.ListArray.from_arrays(ones, pa.StructArray.from_arrays(source, fields=list(schema.SOURCE_FILE))),
        "content_sha256": _hex(content),
        "pixels_digest": _binary(pixels),
        "labels_digest": _binary(labels),
        "recipe_sha256": _same(hashlib.sha256(b"made up").hexdigest(), count),
        "shard": pc.binary_join_element_wise(_text("shard-", case // 400, 5), ".parquet", ""),
        "row": pa.array(numbers % (400 * SLICES)),
    }
    return pa.table([columns[name] for name in schema.MANIFEST_SCHEMA.names], schema=schema.MANIFEST_SCHEMA)


def _objects(numbers: np.ndarray[Any, np.dtype[np.int64]]) -> pa.StructArray:
    """An object for each row number."""
    count = len(numbers)
    corners = pa.array(np.tile(np.array([5, 6, 40, 50], dtype=np.int32), count))
    return pa.StructArray.from_arrays(
        [
            _same("liver", count),
            pa.array(np.ones(count, dtype=np.int32)),
            pc.binary_join_element_wise(_text("", numbers, 8), "0_1`2N3oP", ""),
            pa.ListArray.from_arrays(np.arange(0, 4 * count + 1, 4, dtype=np.int32), corners),
            pa.array(np.full(count, 900, dtype=np.int64)),
        ],
        fields=list(schema.OBJECT),
    )


def _same(text: str, count: int) -> pa.Array:
    return pa.repeat(pa.scalar(text), count)


def _text(prefix: str, numbers: np.ndarray[Any, np.dtype[np.int64]], digits: int) -> pa.Array:
    padded = pc.utf8_lpad(pa.array(numbers).cast(pa.string()), digits, "0")
    return pc.binary_join_element_wise(prefix, padded, "")


def _random_bytes(random: np.random.Generator, count: int, width: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    return np.frombuffer(random.bytes(width * count), dtype=np.uint8).reshape(count, width)


def _binary(rows: np.ndarray[Any, np.dtype[np.uint8]]) -> pa.Array:
    """Each row of bytes as one value of that width."""
    return pa.FixedSizeBinaryArray.from_buffers(
        pa.binary(rows.shape[1]), len(rows), [None, pa.py_buffer(rows.tobytes())]
    )


def _hex(rows: np.ndarray[Any, np.dtype[np.uint8]]) -> pa.Array:
    """Each row of 32 bytes as 64 hex digits."""
    digits = pa.py_buffer(rows.tobytes().hex().encode())
    offsets = pa.py_buffer(np.arange(0, 64 * len(rows) + 1, 64, dtype=np.int32))
    return pa.StringArray.from_buffers(len(rows), offsets, digits)


def _offsets(lengths: np.ndarray[Any, np.dtype[np.int64]]) -> np.ndarray[Any, np.dtype[np.int32]]:
    return np.concatenate(([0], np.cumsum(lengths))).astype(np.int32)


def _asked(question: str, old: Path, new: Path, rows: int) -> dict[str, Any]:
    command = [sys.executable, "-m", "pipelines.bench.manifests", question, str(old), str(new), str(rows)]
    done = subprocess.run(command, check=True, text=True, stdout=subprocess.PIPE, timeout=LIMIT_S)
    value: dict[str, Any] = json.loads(done.stdout)
    return value


def _why(error: subprocess.CalledProcessError | subprocess.TimeoutExpired) -> str:
    if isinstance(error, subprocess.TimeoutExpired):
        return f"more than {LIMIT_S} s"
    return f"exit code {error.returncode} (memory is limited to {LIMIT_BYTES / 2**30:.0f} GiB)"


def splits(old: Path, new: Path, rows: int) -> Any:
    """Rows by split."""
    counted = pq.read_table(old, columns=["split"]).column("split").value_counts().to_pylist()
    return {item["values"]: item["counts"] for item in counted}


def case(old: Path, new: Path, rows: int) -> Any:
    """How many rows the middle case has, through the search that `segfoundry audit case` uses."""
    from registry.audit import rows_of_case

    return rows_of_case(old, (f"case{rows // SLICES // 2:08d}",)).num_rows


def diff(old: Path, new: Path, rows: int) -> Any:
    """Counts of what changed."""
    from preprocessing.diff import diff_manifests

    return diff_manifests(old, new)["counts"]


def peak_bytes() -> int:
    """The most resident memory that this process ever had; `ru_maxrss` would count its parent's too."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    msg = "no VmHWM in /proc/self/status: peak memory is measured on Linux alone"
    raise ServiceError(msg)


def main() -> None:
    """Answer one question about two manifests; print {"seconds", "peak_bytes", "answer"}."""
    name, old, new, rows = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]), int(sys.argv[4])
    question: Callable[[Path, Path, int], Any] = {"splits": splits, "case": case, "diff": diff}[name]
    resource.setrlimit(resource.RLIMIT_DATA, (LIMIT_BYTES, LIMIT_BYTES))
    begun = time.monotonic()
    answer = question(old, new, rows)
    seconds = time.monotonic() - begun
    sys.stdout.write(json.dumps({"seconds": round(seconds, 3), "peak_bytes": peak_bytes(), "answer": answer}) + "\n")


if __name__ == "__main__":
    main()
