"""Loader figures: samples a second of our stream and of public loaders, from the same pictures.

    python -m training.loader_bench --data FOLDER [--peers PYTHON] [--json FILE] [--markdown FILE]

`--data` is a folder with dataset versions or with picture files; without it pictures are drawn. Of what is found
2,000 pictures of 512 × 512 are made (further orientations where there are fewer), every second one grey. The public
loaders get them as PNG, each in its own container, decoded by Pillow as their documentation does, and, for what the
decoder alone is worth, as PNG and HTJ2K by the decoders that ours uses. Ours come in each codec that ingest can write.
All give batches of 16 as uint8 (16, 3, 512, 512). The runs of all loaders take turns; each is a process of its own,
timed from asking for the first batch to having the last.
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
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from training.bench_pictures import find_pictures, write_files, write_pictures, write_version
from training.loader_peers import PEERS, SHUFFLE_SAMPLES, timed
from training.order import positions_of
from training.pipeline import in_order
from training.recipes import tiny
from training.shard_samples import ShardSample, ShardSamples
from training.store import ShardStore

SAMPLES, SIZE_PX, BATCH = 2_000, 512, 16
CODECS = ("png", "htj2k", "zstd")
AHEAD = 2
OURS = "ours"
SHARED = ("png", "htj2k")  # codecs that the peers are measured with too, by the decoders of ours
_PEERS_FILE = str(Path(__file__).with_name("loader_peers.py"))


@dataclass(frozen=True)
class Run:
    """One loader in one setting: `helpers` are threads of ours, worker processes of a peer."""

    loader: str
    helpers: int
    python: str
    codec: str = "png"
    decoder: str = "imagecodecs"  # of a peer: imagecodecs, as ours, or pillow

    def command(self, folder: Path, samples: int) -> list[str]:
        """The process that runs it and prints what `timed` returns."""
        numbers = [str(self.helpers), str(BATCH), str(samples)]
        if self.loader == OURS:
            arguments = [str(folder / self.codec), str(self.helpers), str(samples)]
            return [self.python, "-m", "training.loader_bench", "--run-ours", *arguments]
        return [self.python, _PEERS_FILE, "run", self.loader, str(folder), self.codec, self.decoder, *numbers]


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


def measure(
    runs: list[Run], folder: Path, samples: int, repeats: int, tell: Callable[[str], object]
) -> dict[Run, list[dict[str, float]]]:
    """What `timed` returned of each run, round by round; another one begins each round."""
    found: dict[Run, list[dict[str, float]]] = {run: [] for run in runs}
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    for repeat in range(repeats):
        for run in runs[repeat % len(runs) :] + runs[: repeat % len(runs)]:
            tell(f"loader, round {repeat + 1} of {repeats}: {run.loader}, {run.codec}, {run.helpers} helpers")
            command = run.command(folder, samples)
            done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment)
            found[run].append(json.loads(done.stdout.splitlines()[-1]))
    for run, results in found.items():
        assert all(each["samples"] == samples for each in results), f"{run.loader} gave {results}"
    return found


def rows_of(found: dict[Run, list[dict[str, float]]]) -> list[dict[str, Any]]:
    """Median, lowest and highest samples a second of each run, and its largest peak memory."""
    rows = []
    for run, results in found.items():
        rates = [_rate(each) for each in results]
        rows.append(
            {
                "loader": run.loader,
                "codec": run.codec,
                "decoder": run.decoder,
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


def _rate(result: dict[str, float]) -> float:
    return result["samples"] / result["seconds"]


def ratios_of(found: dict[Run, list[dict[str, float]]], codecs: list[str]) -> list[dict[str, Any]]:
    """Ours at its best with a codec over the best of the others, round by round; without others none."""
    rows = []
    for codec in codecs:
        ours = [results for run, results in found.items() if run.loader == OURS and run.codec == codec]
        sides = [("png", "pillow"), (codec, "imagecodecs")]
        for payload, decoder in sides:
            theirs = [
                results
                for run, results in found.items()
                if run.loader != OURS and (run.codec, run.decoder) == (payload, decoder)
            ]
            if not theirs:
                continue
            rounds = [
                max(map(_rate, own)) / max(map(_rate, other))
                for own, other in zip(zip(*ours, strict=True), zip(*theirs, strict=True), strict=True)
            ]
            rows.append(
                {
                    "codec": codec,
                    "theirs": payload,
                    "decoder": decoder,
                    "median": round(statistics.median(rounds), 2),
                    "lowest": round(min(rounds), 2),
                    "highest": round(max(rounds), 2),
                }
            )
    return rows


def table(result: dict[str, Any]) -> str:
    """The figures as Markdown."""
    lines = [
        f"{result['samples']:,} pictures of {result['size_px']} × {result['size_px']}, half of them RGB, "
        f"{result['kb_a_picture']:.0f} kB each as PNG, {result['source']}; "
        f"{result['cores']} cores of {result['cpu']}; median of {result['repeats']} runs that took turns; "
        f"{result['load_before']:.1f} runnable processes before the start, {result['load_after']:.1f} after the end.",
        "",
        "| loader | codec, decoder | threads / workers | samples/s | lowest – highest | CPU ms a sample "
        "| peak memory, MB |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in result["rows"]:
        own = row["loader"] == OURS
        codec = row["codec"] if own else f"{row['codec']}, {row['decoder']}"
        helpers = f"{row['helpers']} {'threads' if own else 'workers'}"
        spread = f"{row['lowest']:.0f} – {row['highest']:.0f}"
        cells = [row["loader"], codec, helpers, f"{row['samples_per_s']:.0f}", spread]
        lines.append("| " + " | ".join([*cells, f"{row['cpu_ms']:.2f}", str(row["peak_mb"])]) + " |")
    if result["ratios"]:
        lines += [
            "",
            "Ours at its best over the best of the others, round by round:",
            "",
            "| ours | the others | median | lowest – highest |",
            "| --- | --- | --- | --- |",
        ]
        for row in result["ratios"]:
            told = f"{row['theirs']}, {row['decoder']}"
            span = f"{row['lowest']:.2f} – {row['highest']:.2f}"
            lines.append(f"| {row['codec']} | {told} | {row['median']:.2f} × | {span} |")
    if result["missing"]:
        lines += ["", f"Not installed here and not measured: {', '.join(result['missing'])}."]
    lines += [
        "",
        "| ranks | buffer, MiB | bytes a rank reads per encoded byte it uses |",
        "| --- | --- | --- |",
        *(f"| {row['ranks']} | {row['buffer_mb']} | {row['read_per_used']:.2f} |" for row in result["reads"]),
    ]
    return "\n".join(lines) + "\n"


def bench(
    data: Path | None,
    scratch: Path,
    python: str,
    *,
    samples: int,
    repeats: int,
    codecs: list[str],
    tell: Callable[[str], object] = lambda _: None,
) -> dict[str, Any]:
    """Write the pictures, run everybody; `python` is the interpreter that has the peers."""
    load_before = os.getloadavg()[0]
    tell("loader: writing pictures")
    encoded = write_pictures(find_pictures(data), scratch / "png", samples, SIZE_PX)
    for codec in codecs:
        write_version(scratch / codec / "version", encoded, SIZE_PX, codec)
    here = [peer for peer in PEERS if _has(python, PEERS[peer])]
    shared = [codec for codec in SHARED if codec in codecs and here and _has(python, "imagecodecs")]
    for codec in {"png", *shared}:
        if codec != "png":
            write_files(scratch / codec, encoded, codec)
        for peer in here:
            command = [python, _PEERS_FILE, "write", peer, str(scratch), codec]
            subprocess.run(command, check=True, capture_output=True)
    runs = [Run(OURS, threads, sys.executable, codec) for codec in codecs for threads in (0, 2)]
    runs += [Run(peer, workers, python, "png", "pillow") for peer in here for workers in (0, 2)]
    # with a helper a core, as they are fastest
    runs += [Run(peer, 2, python, codec) for codec in shared for peer in here]
    read = reads(scratch / codecs[0], samples)
    found = measure(runs, scratch, samples, repeats, tell)
    return {
        "samples": samples,
        "size_px": SIZE_PX,
        "kb_a_picture": sum(map(len, encoded)) / len(encoded) / 1e3,
        "source": "from the folder given" if data else "drawn",
        "cores": len(os.sched_getaffinity(0)),
        "cpu": _cpu(),
        "load_before": load_before,
        "load_after": os.getloadavg()[0],
        "repeats": repeats,
        "missing": [peer for peer in PEERS if peer not in here],
        "rows": rows_of(found),
        "reads": read,
        "ratios": ratios_of(found, codecs),
    }


def _has(python: str, module: str) -> bool:
    code = f"import importlib.util, sys; sys.exit(importlib.util.find_spec({module!r}) is None)"
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
    parser.add_argument("--codecs", default=",".join(CODECS), help="of our shards")
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
            tell=lambda line: sys.stderr.write(f"{line}\n"),
        )
    text = json.dumps(result, indent=1)
    if asked.json:
        asked.json.write_text(text + "\n")
    if asked.markdown:
        asked.markdown.write_text(table(result))
    sys.stdout.write(text + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
