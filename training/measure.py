"""Evaluation spread over processes: shards in parts, a model loaded once a process.

The map over parts is `infra.compute`'s; nothing here knows what runs it.
"""

from __future__ import annotations

import contextlib
import itertools
import math
import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa

from infra.compute import ray_map
from infra.errors import UsageError
from infra.storage import null_for_nan, read_json, sha256_file, write_json
from preprocessing import schema
from training.loaded import segmenter
from training.spec import CONFIG, START, WEIGHTS

Progress = Callable[[dict[str, Any]], None]
Spread = Callable[..., Iterable[Any]]

PROMPTS = ("text", "box", "synonym")
DEFAULT_PROMPTS = ("text", "box")
DEFAULT_TOLERANCE_MM = 2.0
MOST_SYNONYMS = 3
"""Synonyms that a concept is asked by: with the canonical words, four prompts."""
PART_SAMPLES = 64
PART_CASES = 8
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


def threshold_job(job: dict[str, Any]) -> tuple[Any, list[dict[str, Any]]]:
    """Rows for `choose_decision` of one place (Ray pickles this function by name)."""
    from training.evaluate import threshold_rows

    return _key(job), threshold_rows(
        segmenter(job["folder"], job["weights"]), _job_shard(job), job["split"], _job_part(job)
    )


def run_evaluation(
    *,
    data_root: Path,
    datasets: list[str],
    candidate: Path,
    out: Path,
    params: dict[str, Any],
    against: Path | None = None,
    told: Mapping[str, Any] | None = None,
    spread: Spread = ray_map,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Evaluate a candidate and its start checkpoint and write the evaluation folder; return `evaluation.json`.

    Args:
        data_root: folder of dataset versions.
        datasets: names of the versions.
        candidate: the candidate folder; without a start checkpoint in it (a model of the registry) that is left out.
        out: the evaluation folder; replaced in one rename at the end.
        params: the `evaluate` section of params.yaml.
        against: model folder of a champion, asked by text for the same pairs.
        told: further entries of evaluation.json, e.g. where model and data come from.
        spread: maps a function over jobs, in any order: over Ray, or `map` for this process alone.
        progress: called after each shard with done and total.
    """
    import pyarrow.parquet as pq

    from training.gallery import write_overlays
    from training.scoring import document, figures
    from training.scoring.volumes import VOLUMES_SCHEMA
    from training.summary import summarise, table_of

    chosen = Settings.of(params)
    record = read_json(candidate / "train.json")
    found = _ask(data_root, datasets, models_of(candidate, against, chosen.prompts), chosen, spread, progress)
    rows = found.rows
    volumes, refused = _measure_volumes(data_root, found.slices, chosen, spread)
    versions = {name: schema.read_dataset_file(data_root / name) for name in datasets}
    modalities = {name: version["modality"] for name, version in versions.items()}
    external = [name for name, version in versions.items() if version.get("evaluation_only")]
    evaluation: dict[str, Any] = {
        "schema": "2",
        "split": chosen.split,
        "manifest_digests": {name: version["manifest_digest"] for name, version in versions.items()},
        "weights_sha256": record["weights_sha256"],
        "start_sha256": record["start_sha256"],
        "decision": read_json(candidate / CONFIG).get("decision", {}),
        "against": _told_of(against),
        "prompts": {kind: {"privileged": kind == "box"} for kind in chosen.prompts},
        "settings": {
            "surface_tolerance_mm": chosen.surface_tolerance_mm,
            "max_samples_per_dataset": chosen.most,
        },
        **(told or {}),
        **summarise(rows, modalities, external),
        "aggregates": figures.aggregates(rows, external),
        "paired": figures.paired(rows, external),
        "surface": document.surface_figures(volumes, refused, external, chosen.surface_tolerance_mm),
        "instances": document.instance_figures(found.instances, external),
        "presence": document.presence_figures(rows, external),
        "synonyms": document.synonym_figures(rows, external),
        "failures": document.failure_figures(rows),
    }
    evaluation = null_for_nan(evaluation)
    with replaced_folder(out) as folder:
        pq.write_table(table_of(rows), folder / "evaluation.parquet", compression="zstd")
        pq.write_table(figures.group_table(rows, external), folder / "groups.parquet", compression="zstd")
        table = pa.Table.from_pylist(volumes, schema=VOLUMES_SCHEMA)
        pq.write_table(table, folder / "volumes.parquet", compression="zstd")
        write_json(folder / "evaluation.json", evaluation)
        base = {"folder": str(candidate.resolve()), "data_root": str(data_root.resolve()), "split": chosen.split}
        write_overlays(folder, rows, base, spread)
    return evaluation


@dataclass(frozen=True)
class Settings:
    """The `evaluate` section of params.yaml."""

    split: str
    most: int  # samples of a dataset; 0: all
    prompts: tuple[str, ...]
    surface_tolerance_mm: float

    @classmethod
    def of(cls, params: Mapping[str, Any]) -> Settings:
        """UsageError for a kind of prompt that there is not, or without text, which is the headline."""
        prompts = tuple(params.get("prompts") or DEFAULT_PROMPTS)
        if "text" not in prompts or not set(prompts) <= set(PROMPTS) or len(set(prompts)) < len(prompts):
            msg = (
                f"evaluate.prompts: expected text, which is the headline, and others of {', '.join(PROMPTS)}, each "
                f"once; found {', '.join(prompts)}"
            )
            raise UsageError(msg)
        return cls(
            str(params["split"]),
            int(params.get("max_samples_per_dataset") or 0),
            tuple(kind for kind in PROMPTS if kind in prompts),
            float(params.get("surface_tolerance_mm", DEFAULT_TOLERANCE_MM)),
        )


def models_of(candidate: Path, against: Path | None, prompts: Sequence[str]) -> list[dict[str, Any]]:
    """What is asked: "after" by all kinds of prompts, the others by text, which is what models are compared by."""
    found = [{"model": "after", "folder": str(candidate.resolve()), "weights": WEIGHTS, "prompts": tuple(prompts)}]
    if (candidate / START).is_file():
        found.append({"model": "before", "folder": str(candidate.resolve()), "weights": START, "prompts": ("text",)})
    if against is not None:
        found.append({"model": "champion", "folder": str(against.resolve()), "weights": WEIGHTS, "prompts": ("text",)})
    return found


def _told_of(against: Path | None) -> dict[str, Any] | None:
    if against is None:
        return None
    decision = read_json(against / CONFIG).get("decision", {})
    return {"weights_sha256": sha256_file(against / WEIGHTS), "decision": decision}


def _ask(
    data_root: Path,
    datasets: list[str],
    models: Sequence[dict[str, Any]],
    chosen: Settings,
    spread: Spread,
    progress: Progress | None,
) -> Any:
    from training.evaluate import Found

    about = {name: _about(data_root / name, chosen) for name in datasets}
    shards = places(data_root, datasets, chosen.split, chosen.most)
    jobs = [{**model, **place, **about[place["dataset"]]} for model in models for place in shards]
    parts = []
    for part in spread(_evaluate_job, jobs):
        parts.append(part)
        if progress is not None:
            progress({"done": len(parts), "total": len(jobs)})
    found = Found()
    for _, part in sorted(parts, key=lambda item: item[0]):
        found.rows += part.rows
        found.instances += part.instances
        found.slices += part.slices
    return found


def _about(folder: Path, chosen: Settings) -> dict[str, Any]:
    """Synonyms of a dataset's concepts, and which of them are sets of instances in the split."""
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    words: dict[str, list[str]] = {}
    if "synonym" in chosen.prompts:
        for concept, entry in schema.read_concepts(folder).items():
            others = [text for text in dict.fromkeys(entry["prompts"]) if text != concept]
            words[concept] = others[:MOST_SYNONYMS]
    sets: set[str] = set()
    with pq.ParquetFile(folder / schema.MANIFEST_FILE) as manifest:
        for batch in manifest.iter_batches(4096, columns=["split", "objects.list.element.concept"]):
            rows = batch.filter(pc.equal(batch["split"], chosen.split))
            for objects in rows.column("objects").to_pylist():
                counts = Counter(item["concept"] for item in objects)
                sets.update(concept for concept, count in counts.items() if count > 1)
    return {"wordings": words, "instances": sorted(sets)}


def _evaluate_job(job: dict[str, Any]) -> tuple[Any, Any]:
    from training.evaluate import Asked, evaluate_part

    asked = Asked(job["model"], job["prompts"], job["wordings"], frozenset(job["instances"]), volumes=True)
    model = segmenter(job["folder"], job["weights"])
    return _key(job), evaluate_part(model, _job_shard(job), job["split"], _job_part(job), asked)


def _measure_volumes(
    data_root: Path, slices: list[dict[str, Any]], chosen: Settings, spread: Spread
) -> tuple[list[dict[str, Any]], dict[str, list[tuple[str, str]]]]:
    """Rows of whole volumes in a fixed order, and (case, reason) of those that were not measured by dataset."""
    from training.scoring.volumes import said_of

    cases: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for one in slices:
        cases.setdefault((one["dataset"], one["case_id"]), []).append(one)
    jobs = []
    for name, group in itertools.groupby(sorted(cases), key=lambda key: key[0]):
        keys = list(group)
        for first in range(0, len(keys), PART_CASES):
            mine = keys[first : first + PART_CASES]
            jobs.append(
                {
                    "dataset": name,
                    "folder": str((data_root / name).resolve()),
                    "split": chosen.split,
                    "cases": [case for _, case in mine],
                    "said": said_of(one for key in mine for one in cases[key]),
                    "tolerance": chosen.surface_tolerance_mm,
                }
            )
    rows: list[dict[str, Any]] = []
    refused: dict[str, list[tuple[str, str]]] = {}
    for name, part, reasons in spread(_volume_job, jobs):
        rows += part
        if reasons:
            refused.setdefault(name, []).extend(reasons)
    rows.sort(key=lambda row: tuple(row[key] for key in ("dataset", "case_id", "axis", "concept", "model")))
    return rows, refused


def _volume_job(job: dict[str, Any]) -> tuple[str, list[dict[str, Any]], list[tuple[str, str]]]:
    from training.scoring.volumes import measure_cases

    rows, refused = measure_cases(Path(job["folder"]), job["split"], job["said"], job["cases"], job["tolerance"])
    return job["dataset"], rows, refused
