"""The candidate folder that a finished run leaves: rank 0's files first, then thresholds and record."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

from infra.compute import ray_map
from infra.storage import read_json, sha256_file, write_json, write_text
from preprocessing import schema
from preprocessing.schema.licences import model_licence
from training.measure import THRESHOLD_SAMPLES, places, replaced_folder, threshold_job
from training.spec import CONFIG, START, TOKENIZER, WEIGHTS, FitSpec

ENGINE = "training.predict:Segmenter"


def write_final(spec: FitSpec, final: Path, result: Any, weights: Any) -> None:
    """Write what a run leaves, by rank 0: start and final weights, tokenizer, history; `done.json` comes last.

    Args:
        spec: of the run.
        final: the folder.
        result: a `FitResult`.
        weights: state dict of the model that is kept, whole tensors.
    """
    from training.fit import start_model
    from training.sam3.checkpoint import save_weights
    from training.sam3.tokenizer import PromptTokenizer

    final.mkdir(parents=True, exist_ok=True)
    begun, loaded = start_model(spec.recipe, spec.start, digest=True)
    save_weights(final / START, begun.state_dict())
    save_weights(final / WEIGHTS, weights)
    PromptTokenizer.from_installed().save(final / TOKENIZER)
    write_text(final / "history.jsonl", "".join(json.dumps(line, sort_keys=True) + "\n" for line in result.history))
    parameters = sum(parameter.numel() for parameter in result.module.model.parameters())
    guard = result.module.guard
    done = {"parameters": parameters, "skipped_batches": guard.skipped, "skipped": guard.records}
    write_json(final / "done.json", {**done, "start": loaded.record() if loaded else None})


def publish(spec: FitSpec, final: Path, out: Path, digests: dict[str, str], workers: int) -> dict[str, Any]:
    """Choose the thresholds on the validation split, then put the candidate folder in place."""
    from training.decision import choose_decision, decision_record

    done = read_json(final / "done.json")
    with replaced_folder(out) as folder:
        for name in (START, WEIGHTS, "history.jsonl"):
            shutil.copyfile(final / name, folder / name)
        shutil.copytree(final / TOKENIZER, folder / TOKENIZER)
        config: dict[str, Any] = {
            "engine": ENGINE,
            "image_size": spec.recipe.image_size,
            "sam3": spec.recipe.sam3,
            "recipe": spec.recipe.name,
        }
        if spec.recipe.neighbours:
            config["neighbours"] = spec.recipe.neighbours  # whoever serves a volume gives its slices these channels
        write_json(folder / CONFIG, config)
        # the start checkpoint is judged by thresholds of its own: "before" must not be worse than it is
        for name, weights in (("decision", WEIGHTS), ("start_decision", START)):
            jobs = [
                {"folder": str(folder), "weights": weights, **place}
                for place in places(Path(spec.data_root), spec.datasets, "val", THRESHOLD_SAMPLES)
            ]
            parts = sorted(ray_map(threshold_job, jobs), key=lambda item: item[0])
            rows = [row for _, part in parts for row in part]
            config[name] = decision_record(choose_decision(rows, calibrate=spec.recipe.calibrate_presence))
        write_json(folder / CONFIG, config)
        record = {
            "recipe": asdict(spec.recipe),
            "seed": spec.recipe.seed,
            "steps": spec.recipe.steps,
            "workers": workers,
            "parameters": done["parameters"],
            "skipped_batches": done["skipped_batches"],
            "skipped": done["skipped"],
            "start": done["start"],
            "datasets": digests,
            "licence": model_licence(schema.read_dataset_file(Path(spec.data_root) / name) for name in digests),
            "weights_sha256": sha256_file(folder / WEIGHTS),
            "start_sha256": sha256_file(folder / START),
        }
        write_json(folder / "train.json", record)
    return record
