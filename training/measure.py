"""Evaluation spread over processes: shards in parts, a model loaded once a process.

The map over parts is `infra.compute`'s; nothing here knows what runs it.
"""

from __future__ import annotations

import contextlib
import math
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from infra.compute import ray_map
from infra.storage import read_json, sha256_file, write_json
from preprocessing import schema
from training.spec import START, WEIGHTS

Progress = Callable[[dict[str, Any]], None]

PART_SAMPLES = 64
THRESHOLD_SAMPLES = 256  # of each dataset's validation split


@contextlib.contextmanager
def replaced_folder(out: Path) -> Iterator[Path]:
    """A new folder that takes the place of `out` at the end of the block; a killed one is cleared next time."""
    out.parent.mkdir(parents=True, exist_ok=True)
    building = out.with_name(f".{out.name}.part-tmp")
    shutil.rmtree(building, ignore_errors=True)
    building.mkdir()
    yield building
    if out.exists():
        old = out.with_name(f".{out.name}.old-part-tmp")
        shutil.rmtree(old, ignore_errors=True)
        os.replace(out, old)
        os.replace(building, out)
        shutil.rmtree(old, ignore_errors=True)
    else:
        os.replace(building, out)


def places(data_root: Path, datasets: list[str], split: str, most: int = 0) -> list[dict[str, Any]]:
    """What the evaluation jobs read: shards, large ones in parts of about `PART_SAMPLES` samples.

    `most` > 0 keeps about as many samples of each dataset, evenly spread over it.
    """
    found: list[dict[str, Any]] = []
    for name in datasets:
        record = schema.read_dataset_file(data_root / name)
        shards, samples = len(record["shards"]), int(record["splits"].get(split, 0))
        kept = min(samples, most) if most else samples
        if not kept:
            continue
        # a part holds every `of`-th sample; leaving parts out thins a dataset evenly
        of = math.ceil(samples / PART_SAMPLES / shards)
        if most and kept < samples:
            of = max(of, math.ceil(samples / kept))
        parts = max(1, round(of * kept / samples))
        found.extend(
            {
                "data_root": str(data_root.resolve()),
                "dataset": name,
                "shard": shard,
                "part": number,
                "of": of,
                "split": split,
            }
            for shard in range(shards)
            for number in range(parts)
        )
    return found


def _key(job: dict[str, Any]) -> tuple[str, str, int, int]:
    return job.get("model", ""), job["dataset"], job["shard"], job["part"]


def _job_shard(job: dict[str, Any]) -> Any:
    from training.prepared import shards_of

    shard = shards_of(Path(job["data_root"]), job["dataset"])[job["shard"]]
    if "remote" in job:  # a FitSpec: `data_root` holds its small files alone
        from training.fit import open_store

        return replace(shard, path=open_store(job["remote"]).path(shard))
    return shard


def _job_part(job: dict[str, Any]) -> Any:
    from training.prepared import Part

    return Part(job["part"], job["of"])


_segmenters: dict[tuple[str, str], Any] = {}


def _segmenter(folder: str, weights: str) -> Any:
    """The loaded model, once a worker process: Ray keeps its processes between tasks."""
    import torch

    from training.predict import Segmenter

    stamp = (
        f"{folder}:{(Path(folder) / weights).stat().st_mtime_ns}:{sha256_file(Path(folder) / 'config.json')}",
        weights,
    )
    if stamp not in _segmenters:
        torch.set_num_threads(1)
        if len(_segmenters) > 1:
            _segmenters.clear()
        _segmenters[stamp] = Segmenter.load(Path(folder), weights)
    return _segmenters[stamp]


def threshold_job(job: dict[str, Any]) -> tuple[Any, list[dict[str, Any]]]:
    """Rows for `choose_decision` of one place (Ray pickles this function by name)."""
    from training.evaluate import threshold_rows

    return _key(job), threshold_rows(
        _segmenter(job["folder"], job["weights"]), _job_shard(job), job["split"], _job_part(job)
    )


def run_evaluation(
    *,
    data_root: Path,
    datasets: list[str],
    candidate: Path,
    out: Path,
    params: dict[str, Any],
    run_dir: Path,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Evaluate a candidate and its start checkpoint and write the evaluation folder; return `evaluation.json`.

    Args:
        data_root: folder of dataset versions.
        datasets: names of the versions.
        candidate: the candidate folder.
        out: the evaluation folder; replaced in one rename at the end.
        params: the `evaluate` section of params.yaml.
        run_dir: machine-local state (not used yet by this in-memory pass).
        progress: called after each shard with done and total.
    """
    import pyarrow.parquet as pq

    from training.overlays import choose
    from training.summary import summarise, table_of

    split, most = str(params["split"]), int(params.get("max_samples_per_dataset") or 0)
    record = read_json(candidate / "train.json")
    folder_of_model = str(candidate.resolve())
    jobs = [
        {"folder": folder_of_model, **place, "model": model, "weights": weights, "prompts": prompts}
        # "before" is asked by text alone: boxes say nothing about what training brought
        for model, weights, prompts in (("after", WEIGHTS, ("text", "box")), ("before", START, ("text",)))
        for place in places(data_root, datasets, split, most)
    ]
    parts = []
    for part in ray_map(_evaluate_job, jobs):
        parts.append(part)
        if progress is not None:
            progress({"done": len(parts), "total": len(jobs)})
    rows = [row for _, found in sorted(parts, key=lambda item: item[0]) for row in found]
    versions = {name: schema.read_dataset_file(data_root / name) for name in datasets}
    modalities = {name: version["modality"] for name, version in versions.items()}
    external = [name for name, version in versions.items() if version.get("evaluation_only")]
    evaluation = {
        "schema": "1",
        "split": split,
        "manifest_digests": {name: schema.read_dataset_file(data_root / name)["manifest_digest"] for name in datasets},
        "weights_sha256": record["weights_sha256"],
        "start_sha256": record["start_sha256"],
        "decision": read_json(candidate / "config.json").get("decision", {}),
        "prompts": {"text": {"privileged": False}, "box": {"privileged": True}},
        **summarise(rows, modalities, external),
    }
    with replaced_folder(out) as folder:
        pq.write_table(table_of(rows), folder / "evaluation.parquet", compression="zstd")
        write_json(folder / "evaluation.json", evaluation)
        base = {"folder": folder_of_model, "data_root": str(data_root.resolve()), "split": split}
        _write_overlays(folder, rows, choose(rows), base, datasets)
    return evaluation


def _evaluate_job(job: dict[str, Any]) -> tuple[Any, list[dict[str, Any]]]:
    from training.evaluate import evaluate_shard

    segmenter = _segmenter(job["folder"], job["weights"])
    rows = evaluate_shard(
        segmenter, _job_shard(job), job["split"], _job_part(job), model=job["model"], prompts=job["prompts"]
    )
    return _key(job), rows


def _write_overlays(
    folder: Path, rows: list[dict[str, Any]], chosen: list[dict[str, Any]], base: dict[str, Any], datasets: list[str]
) -> None:
    before = {
        (row["sample_id"], row["concept"]): row["dice"]
        for row in rows
        if row["model"] == "before" and row["prompt"] == "text"
    }
    jobs = [
        {
            **base,
            "dataset": name,
            "pairs": [(row["sample_id"], row["concept"]) for row in chosen if row["dataset"] == name],
        }
        for name in datasets
    ]
    pictures: dict[tuple[str, str], bytes] = {}
    for part in ray_map(_overlay_job, [job for job in jobs if job["pairs"]]):
        pictures.update(part)
    listed = []
    (folder / "overlays").mkdir()
    for number, row in enumerate(chosen):
        key = (row["sample_id"], row["concept"])
        name = f"overlays/{number:03d}.png"
        (folder / name).write_bytes(pictures[key])
        listed.append(
            {
                "file": name,
                "shown_as": row["shown_as"],
                "dataset": row["dataset"],
                "modality": row["modality"],
                "sample_id": row["sample_id"],
                "concept": row["concept"],
                "dice_before": before.get(key),
                "dice_after": row["dice"],
            }
        )
    write_json(folder / "overlays.json", listed)


def _overlay_job(job: dict[str, Any]) -> dict[tuple[str, str], bytes]:
    from training.evaluate import truth_of
    from training.neighbours import pictures
    from training.overlays import triptych
    from training.prepared import decode_image, rows_of, shards_of

    segmenter = _segmenter(job["folder"], WEIGHTS)
    wanted = {tuple(pair) for pair in job["pairs"]}
    samples = {sample for sample, _ in wanted}
    drawn = {}
    for shard in shards_of(Path(job["data_root"]), job["dataset"]):
        picture = pictures(shard, job["split"], segmenter.neighbours, segmenter.preprocessing)
        for row in rows_of(shard, job["split"]):
            if row["sample_id"] not in samples:
                continue
            seen, pixels = picture(row, None), decode_image(row["image"])
            for concept in sorted(concept for sample, concept in wanted if sample == row["sample_id"]):
                found = segmenter.segment(seen, [concept])[0]
                drawn[row["sample_id"], concept] = triptych(pixels, truth_of(row, concept), found["mask"])
    return drawn
