"""Loader figures: samples a second of our stream and of public loaders, from the same pictures.

    python -m training.loader_bench --data FOLDER [--peers PYTHON] [--json FILE] [--markdown FILE]

`--data` is a folder with dataset versions or with picture files; without it pictures are drawn. Of what is found
2,000 pictures of 512 × 512 are made (further orientations where there are fewer), every second one grey. The public
loaders get them as PNG, each in its own container, ours in each codec that ingest can write; all give batches of 16
as uint8 (16, 3, 512, 512). The runs of all loaders take turns; each is a process of its own, timed from asking for the
first batch to having the last.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from training.bench_pictures import find_pictures, write_pictures, write_version
from training.loader_peers import PEERS, SHUFFLE_SAMPLES, timed
from training.order import positions_of
from training.pipeline import in_order
from training.recipes import tiny
from training.shard_samples import ShardSample, ShardSamples
from training.store import ShardStore

SAMPLES, SIZE_PX, BATCH = 2_000, 512, 16
AHEAD = 2


@dataclass(frozen=True)
class Run:
    """One loader in one setting: `helpers` are threads of ours, worker processes of a peer."""

    loader: str
    helpers: int
    python: str
    codec: str = "png"

    def command(self, folder: Path, samples: int) -> list[str]:
        """The process that runs it and prints what `timed` returns."""
        if self.loader == "ours":
            arguments = [str(folder / self.codec), str(self.helpers), str(samples)]
            return [self.python, "-m", "training.loader_bench", "--run-ours", *arguments]
        arguments = [str(folder), str(self.helpers), str(BATCH), str(samples)]
        return [self.python, str(Path(__file__).with_name("loader_peers.py")), "run", self.loader, *arguments]


def batches(folder: Path, threads: int, samples: int, *, size_px: int = SIZE_PX) -> Iterator[Tensor]:
    """Batches of pictures, uint8 (batch, 3, size, size), through the stream's own order, reader and threads.

    A batch is overwritten when `AHEAD` + 2 further ones have been made: buffers are used again.
    """
    source = _source(folder, buffer_bytes=1 << 28, size_px=size_px)
    ring = [torch.empty(BATCH, 3, size_px, size_px, dtype=torch.uint8) for _ in range(AHEAD + 3)]
    buffers = {start: ring[number % len(ring)] for number, start in enumerate(range(0, samples, BATCH))}

    def make(position: int) -> int:
        sample: ShardSample = source.at(position)
        into = buffers[position - position % BATCH][position % BATCH].numpy()
        into[:] = sample.image().transpose(2, 0, 1)  # a grey picture fills all three channels
        return position

    def collate(positions: list[int]) -> Tensor:
        return buffers[positions[0]][: len(positions)]

    steps = (range(start, min(start + BATCH, samples)) for start in range(0, samples, BATCH))
    return in_order(steps, make, collate, threads=threads, ahead=AHEAD)


def _source(folder: Path, *, buffer_bytes: int, size_px: int = SIZE_PX) -> ShardSamples:
    store = ShardStore(str(folder / "version"), folder / "scratch", 1 << 40)
    source = ShardSamples(store, ["bench"], "train", buffer_bytes=buffer_bytes)
    source.follow(
        replace(
            tiny(),
            stream="shards",
            image_size=size_px,
            temperature=1.0,
            most_visits=0,
            shuffle_samples=SHUFFLE_SAMPLES,
        )
    )
    return source


def reads(folder: Path, samples: int) -> list[dict[str, Any]]:
    """Bytes each rank reads per encoded byte it uses, over an epoch, by number of ranks and size of the buffer."""
    rows = []
    for world in (1, 2, 4, 8):
        for buffer_bytes in (1 << 24, 1 << 28):
            source = _source(folder, buffer_bytes=buffer_bytes)
            used = 0
            for step in range(samples // BATCH):
                used += sum(source.at(position).payload_bytes for position in positions_of(step, BATCH, 0, world))
            ratio = source.count.bytes / used
            rows.append({"ranks": world, "buffer_mb": buffer_bytes >> 20, "read_per_used": round(ratio, 2)})
    return rows


def run_ours(folder: Path, threads: int, samples: int) -> dict[str, float]:
    """One timed run in this process."""
    torch.set_num_threads(1)
    return timed(batches(folder, threads, samples))


def measure(runs: list[Run], folder: Path, samples: int, repeats: int) -> list[dict[str, Any]]:
    """Median, lowest and highest samples a second of each run, and its largest peak memory."""
    found: dict[Run, list[dict[str, float]]] = {run: [] for run in runs}
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    for _ in range(repeats):
        for run in runs:
            done = subprocess.run(
                run.command(folder, samples), check=True, stdout=subprocess.PIPE, text=True, env=environment
            )
            found[run].append(json.loads(done.stdout.splitlines()[-1]))
    rows = []
    for run, results in found.items():
        assert all(each["samples"] == samples for each in results), f"{run.loader} gave {results}"
        rates = [each["samples"] / each["seconds"] for each in results]
        rows.append(
            {
                "loader": run.loader,
                "codec": run.codec,
                "helpers": run.helpers,
                "samples_per_s": round(statistics.median(rates), 1),
                "lowest": round(min(rates), 1),
                "highest": round(max(rates), 1),
                # on a machine that does other work too, this says more than samples a second
                "cpu_ms": round(statistics.median(1e3 * each["cpu_seconds"] / each["samples"] for each in results), 2),
                "peak_mb": round(max(each["peak_bytes"] for each in results) / 1e6),
            }
        )
    return rows


def table(result: dict[str, Any]) -> str:
    """The figures as Markdown."""
    lines = [
        f"{result['samples']:,} pictures of {result['size_px']} × {result['size_px']}, half of them RGB, "
        f"{result['kb_a_picture']:.0f} kB each as PNG, {result['source']}; "
        f"{result['cores']} cores of {result['cpu']}; median of {result['repeats']} runs that took turns.",
        "",
        "| loader | codec | threads / workers | samples/s | lowest – highest | CPU ms a sample | peak memory, MB |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in result["rows"]:
        helpers = f"{row['helpers']} {'threads' if row['loader'] == 'ours' else 'workers'}"
        spread = f"{row['lowest']:.0f} – {row['highest']:.0f}"
        cells = [row["loader"], row["codec"], helpers, f"{row['samples_per_s']:.0f}", spread]
        lines.append("| " + " | ".join([*cells, f"{row['cpu_ms']:.2f}", str(row["peak_mb"])]) + " |")
    if result["ratios"]:
        told = ", ".join(f"{ratio:.2f} with {codec}" for codec, ratio in result["ratios"].items())
        lines += ["", f"Ours at its best to the best of the others: {told}."]
    lines += [
        "",
        "| ranks | buffer, MiB | bytes a rank reads per encoded byte it uses |",
        "| --- | --- | --- |",
        *(f"| {row['ranks']} | {row['buffer_mb']} | {row['read_per_used']:.2f} |" for row in result["reads"]),
    ]
    return "\n".join(lines) + "\n"


def bench(
    data: Path | None, scratch: Path, python: str, *, samples: int, repeats: int, codecs: list[str]
) -> dict[str, Any]:
    """Write the pictures, run everybody; `python` is the interpreter that has the peers."""
    encoded = write_pictures(find_pictures(data), scratch / "png", samples, SIZE_PX)
    for codec in codecs:
        write_version(scratch / codec / "version", encoded, SIZE_PX, codec)
    here = [peer for peer in PEERS if _has(python, peer)]
    for peer in here:
        script = str(Path(__file__).with_name("loader_peers.py"))
        subprocess.run([python, script, "write", peer, str(scratch)], check=True, stdout=subprocess.DEVNULL)
    runs = [Run("ours", threads, sys.executable, codec) for codec in codecs for threads in (0, 1, 2)]
    runs += [Run(peer, workers, python) for peer in here for workers in (0, 2)]
    read = reads(scratch / codecs[0], samples)
    rows = measure(runs, scratch, samples, repeats)
    theirs = max((row["samples_per_s"] for row in rows if row["loader"] != "ours"), default=0.0)
    ratios = {
        codec: round(
            max(row["samples_per_s"] for row in rows if row["codec"] == codec and row["loader"] == "ours") / theirs, 2
        )
        for codec in (codecs if theirs else [])
    }
    return {
        "samples": samples,
        "size_px": SIZE_PX,
        "kb_a_picture": sum(map(len, encoded)) / len(encoded) / 1e3,
        "source": "from the folder given" if data else "drawn",
        "cores": len(os.sched_getaffinity(0)),
        "cpu": _cpu(),
        "repeats": repeats,
        "missing": [peer for peer in PEERS if peer not in here],
        "rows": rows,
        "reads": read,
        "ratios": ratios,  # ours at its best with a codec, to the best of the others
    }


def _has(python: str, peer: str) -> bool:
    code = f"import importlib.util, sys; sys.exit(importlib.util.find_spec({PEERS[peer]!r}) is None)"
    return subprocess.run([python, "-c", code], check=False).returncode == 0


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "an unnamed CPU")


def main(arguments: list[str]) -> None:
    """The command line."""
    if arguments[:1] == ["--run-ours"]:
        folder, threads, samples = arguments[1:]
        sys.stdout.write(json.dumps(run_ours(Path(folder), int(threads), int(samples))) + "\n")
        return
    parser = argparse.ArgumentParser(prog="python -m training.loader_bench", description=__doc__)
    parser.add_argument("--data", type=Path, help="folder with dataset versions or with pictures")
    parser.add_argument("--peers", default=sys.executable, help="interpreter with the public loaders")
    parser.add_argument("--samples", type=int, default=SAMPLES)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--codecs", default="png,htj2k,zstd", help="of our shards; the others hold PNG")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--markdown", type=Path)
    asked = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as scratch:
        result = bench(
            asked.data,
            Path(scratch),
            asked.peers,
            samples=asked.samples,
            repeats=asked.repeats,
            codecs=asked.codecs.split(","),
        )
    text = json.dumps(result, indent=1)
    if asked.json:
        asked.json.write_text(text + "\n")
    if asked.markdown:
        asked.markdown.write_text(table(result))
    sys.stdout.write(text + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
