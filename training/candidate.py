"""The candidate folder that a finished run leaves: rank 0's files first, then thresholds and record."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from infra.compute import ray_map
from infra.errors import DataError
from infra.remote import is_remote
from infra.storage import read_json, sha256_file, write_json, write_text
from preprocessing import schema
from preprocessing.schema.licences import model_licence
from training.measure import THRESHOLD_SAMPLES, places, replaced_folder, threshold_job
from training.sam3.licence import start_licences
from training.spec import ADAPTERS, CONFIG, START, TOKENIZER, WEIGHTS, FitSpec

ENGINE = "training.predict:Segmenter"


def write_final(spec: FitSpec, final: Path, result: Any, weights: Any) -> None:
    """Write what a run leaves, by rank 0: start and final weights, tokenizer, history; `done.json` comes last.

    Args:
        spec: of the run.
        final: the folder.
        result: a `FitResult`.
        weights: state dict that is kept, whole tensors; adapters in it are merged, and written beside.
    """
    from training.fit import start_model
    from training.sam3.checkpoint import save_weights
    from training.sam3.tokenizer import PromptTokenizer

    final.mkdir(parents=True, exist_ok=True)
    begun, loaded = start_model(spec.recipe, spec.start, digest=True)
    save_weights(final / START, begun.state_dict())
    lora = spec.recipe.lora
    if lora is not None:
        from training.lora import merged, save_adapters

        save_adapters(final / ADAPTERS, weights, lora)
        weights = merged(weights, lora)
    save_weights(final / WEIGHTS, weights)
    PromptTokenizer.find(spec.tokenizer, spec.start).save(final / TOKENIZER)
    write_text(final / "history.jsonl", "".join(json.dumps(line, sort_keys=True) + "\n" for line in result.history))
    parameters = sum(value.numel() for value in begun.parameters())
    trained = sum(value.numel() for value in result.module.model.parameters() if value.requires_grad)
    guard = result.module.guard
    done = {"parameters": parameters, "trained": trained, "skipped_batches": guard.skipped, "skipped": guard.records}
    report = loaded.record() if loaded else None
    write_json(
        final / "done.json", {**done, "start": report, "start_licences": start_licences(spec.start, report or {})}
    )


def _still_the_same(folders: Mapping[str, Path], digests: Mapping[str, str]) -> None:
    """A remote copy may be replaced while a run trains on it: its record would name the wrong version."""
    for name, folder in folders.items():
        found = schema.read_dataset_file(folder)["manifest_digest"]
        if found != digests[name]:
            msg = (
                f"{name}: expected the version that training began with (manifest {digests[name][:12]}), found "
                f"{found[:12]} when it was over. Bring that version back, or train again on this one"
            )
            raise DataError(msg)


def publish(
    spec: FitSpec,
    final: Path,
    out: Path,
    digests: dict[str, str],
    workers: int,
    spread: Callable[..., Iterable[Any]] = ray_map,
) -> dict[str, Any]:
    """Choose the thresholds on the validation split, then put the candidate folder in place.

    `spread` maps a function over the jobs of validation; `map` does them here, where there is no Ray session.
    """
    from training.decision import choose_decision, decision_record

    done, folders = read_json(final / "done.json"), spec.folders()
    tables = folders[spec.datasets[0]].parent
    _still_the_same(folders, digests)
    # shards of a remote root come through the cache of the machine that asks for them
    remote = {"remote": spec} if is_remote(spec.data_root) else {}
    with replaced_folder(out) as folder:
        for name in (START, WEIGHTS, "history.jsonl"):
            shutil.copyfile(final / name, folder / name)
        shutil.copytree(final / TOKENIZER, folder / TOKENIZER)
        if spec.recipe.lora is not None:
            shutil.copytree(final / ADAPTERS, folder / ADAPTERS)
        config: dict[str, Any] = {
            "engine": ENGINE,
            "image_size": spec.recipe.image_size,
            "sam3": spec.recipe.sam3,
            "recipe": spec.recipe.name,
            "preprocessing": spec.recipe.preprocessing,
        }
        if spec.recipe.neighbours:
            config["neighbours"] = spec.recipe.neighbours  # whoever serves a volume gives its slices these channels
        write_json(folder / CONFIG, config)
        # the start checkpoint is judged by thresholds of its own: "before" must not be worse than it is
        for name, weights in (("decision", WEIGHTS), ("start_decision", START)):
            jobs = [
                {"folder": str(folder), "weights": weights, **place, **remote}
                for place in places(tables, spec.datasets, "val", THRESHOLD_SAMPLES)
            ]
            parts = sorted(spread(threshold_job, jobs), key=lambda item: item[0])
            rows = [row for _, part in parts for row in part]
            config[name] = decision_record(choose_decision(rows, calibrate=spec.recipe.calibrate_presence))
        write_json(folder / CONFIG, config)
        record = {
            "recipe": asdict(spec.recipe),
            "seed": spec.recipe.seed,
            "steps": spec.recipe.steps,
            "workers": workers,
            "parameters": done["parameters"],
            "trained_parameters": done["trained"],
            "skipped_batches": done["skipped_batches"],
            "skipped": done["skipped"],
            "start": done["start"],
            "datasets": digests,
            "start_licences": done["start_licences"],
            "licence": model_licence(
                [
                    *(schema.read_dataset_file(folders[name]) for name in digests),
                    *({"licence": one} for one in done["start_licences"]),
                ]
            ),
            "weights_sha256": sha256_file(folder / WEIGHTS),
            "start_sha256": sha256_file(folder / START),
        }
        write_json(folder / "train.json", record)
    return record
