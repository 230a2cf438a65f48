"""Ray around the training core: the only module of `training/` that knows Ray.

Both functions run in the present Ray session, write their output folder in one rename, and pick up
what a killed run left in `run_dir`.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from infra.compute import ray_map
from infra.errors import ServiceError, UsageError
from infra.storage import digest_of, read_json, sha256_file, write_json, write_text
from preprocessing import schema
from preprocessing.schema.licences import model_licence
from training import recipes
from training.measure import THRESHOLD_SAMPLES, places, replaced_folder, run_evaluation, threshold_job
from training.spec import CONFIG, START, TOKENIZER, WEIGHTS

__all__ = ["run_evaluation", "run_training"]

Progress = Callable[[dict[str, Any]], None]

ENGINE = "training.predict:Segmenter"
_POLL_SECONDS = 0.5
_CHECKPOINT = "state.ckpt"
_MAX_WORKER_FAILURES = 3


def run_training(
    *,
    data_root: Path,
    datasets: list[str],
    out: Path,
    params: dict[str, Any],
    run_dir: Path,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Fine-tune with Ray Train and write the candidate folder (docs/architecture.md); return its `train.json`.

    Args:
        data_root: folder of dataset versions.
        datasets: names of the versions to train on.
        out: the candidate folder; replaced in one rename at the end.
        params: the `train` section of params.yaml.
        run_dir: machine-local state: Ray Train runs, prepared shards, progress.
        progress: called about twice a second with step, steps, loss, samples_per_s, eta_s.
    """
    from training.spec import FitSpec, start_config, start_identity

    recipe = recipes.resolve(params)
    start, start_sha256 = str(params.get("start") or ""), ""
    if start:
        start, start_sha256 = start_identity(start)
        config = start_config(start)
        _need_fitting_start(start)
        recipe = replace(recipe, sam3=config["sam3"], image_size=config["image_size"])
    digests = {name: schema.read_dataset_file(data_root / name)["manifest_digest"] for name in datasets}
    _refuse_evaluation_only(data_root, datasets)
    _need_train_samples(data_root, datasets)
    run_dir = run_dir.resolve()
    run_dir.mkdir(parents=True, exist_ok=True)
    spec = FitSpec(recipe, str(data_root.resolve()), datasets, str(run_dir), start)
    identity = {"recipe": asdict(recipe), "code": recipes.code_sha256(), "digests": digests, "start": start_sha256}
    final = run_dir / "final" / digest_of(identity)[:16]
    if not (final / "done.json").is_file():
        with _watch(run_dir, progress):
            _train(spec, final, int(params.get("workers", 1)))
    return _publish(spec, final, out, digests, int(params.get("workers", 1)))


def _need_fitting_start(start: str) -> None:
    """Weights that do not fit are the user's to mend: said here, not by workers that are started again and again."""
    from training.sam3.checkpoint import open_checkpoint

    open_checkpoint(start)


def _need_train_samples(data_root: Path, datasets: list[str]) -> None:
    if not any(schema.read_dataset_file(data_root / name)["splits"].get("train") for name in datasets):
        msg = (
            f"nothing to train on: expected at least one sample in the train split, found none in {', '.join(datasets)}"
        )
        raise UsageError(msg)


def _refuse_evaluation_only(data_root: Path, datasets: list[str]) -> None:
    kept = [name for name in datasets if schema.read_dataset_file(data_root / name).get("evaluation_only")]
    if kept:
        msg = (
            f"training: expected datasets to train on, found external test sets, which their cards keep for evaluation "
            f"(evaluation_only): {', '.join(kept)}. Take them out of train.datasets in params.yaml; "
            "while `datasets` lists them, they are ingested and evaluated"
        )
        raise UsageError(msg)


def _train(spec: Any, final: Path, workers: int) -> None:
    import ray
    from ray.train import CheckpointConfig, FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer

    resources = ray.cluster_resources()
    use_gpu = resources.get("GPU", 0) >= workers
    if resources.get("CPU", 0) < workers:
        msg = (
            f"train.workers: expected at most {int(resources.get('CPU', 0))}, the CPUs of this Ray session, "
            f"found {workers}. Lower train.workers in params.yaml or start Ray with more CPUs"
        )
        raise UsageError(msg)
    trainer = TorchTrainer(
        _rank,
        train_loop_config={"spec": spec, "final": str(final), "threads": max(1, int(resources["CPU"]) // workers)},
        scaling_config=ScalingConfig(num_workers=workers, use_gpu=use_gpu),
        run_config=RunConfig(
            # the same inputs find the same run: a killed one goes on from its last checkpoint
            name=final.name,
            storage_path=str(Path(spec.run_dir) / "ray"),
            checkpoint_config=CheckpointConfig(num_to_keep=2),
            failure_config=FailureConfig(max_failures=_MAX_WORKER_FAILURES),
        ),
    )
    result = trainer.fit()
    if not (final / "done.json").is_file():
        msg = f"training ended without its weights in {final}: {result.error or 'see the Ray Train run beside it'}"
        raise ServiceError(msg)
    # the run is over and its weights are kept: its checkpoints (optimiser state) are not needed again
    shutil.rmtree(Path(spec.run_dir) / "ray" / final.name, ignore_errors=True)


def _rank(config: dict[str, Any]) -> None:
    """One Ray Train worker."""
    import lightning
    import torch
    from ray import train
    from ray.train.lightning import RayDDPStrategy, RayLightningEnvironment, prepare_trainer

    from training.fit import fit

    torch.set_num_threads(config["threads"])
    spec, final = config["spec"], Path(config["final"])
    context = train.get_context()
    rank, world_size = context.get_world_rank(), context.get_world_size()

    class ReportCheckpoint(lightning.Callback):
        """Hand a Lightning checkpoint to Ray Train every `checkpoint_every` steps."""

        def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
            step = trainer.global_step
            if step % spec.recipe.checkpoint_every and step != spec.recipe.steps:
                return
            with tempfile.TemporaryDirectory() as folder:
                trainer.save_checkpoint(Path(folder) / _CHECKPOINT)
                metrics = {"step": step, "loss": pl_module.terms["loss"]}
                kept = train.Checkpoint.from_directory(folder) if rank == 0 else None
                train.report(metrics, checkpoint=kept)

    def make_trainer(callbacks: list[lightning.Callback]) -> lightning.Trainer:
        trainer = lightning.Trainer(
            max_steps=spec.recipe.steps,
            max_epochs=-1,
            accelerator="auto",
            devices="auto",
            strategy=RayDDPStrategy(find_unused_parameters=True, gradient_as_bucket_view=True),
            plugins=[RayLightningEnvironment()],
            callbacks=[*callbacks, ReportCheckpoint()],
            gradient_clip_val=spec.recipe.clip_norm,
            precision="bf16-mixed" if torch.cuda.is_available() else "32-true",
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        return prepare_trainer(trainer)

    with contextlib.ExitStack() as stack:
        resume = None
        checkpoint = train.get_checkpoint()
        if checkpoint is not None:
            resume = Path(stack.enter_context(checkpoint.as_directory())) / _CHECKPOINT
        result = fit(
            spec,
            rank=rank,
            world_size=world_size,
            barrier=torch.distributed.barrier,
            make_trainer=make_trainer,
            resume=resume,
        )
    if rank == 0:
        _write_final(spec, final, result)


def _write_final(spec: Any, final: Path, result: Any) -> None:
    from training.fit import start_model
    from training.sam3.checkpoint import save_weights
    from training.sam3.tokenizer import PromptTokenizer

    final.mkdir(parents=True, exist_ok=True)
    begun, loaded = start_model(spec.recipe, spec.start, digest=True)
    save_weights(final / START, begun.state_dict())
    save_weights(final / WEIGHTS, result.module.averaged_state())
    PromptTokenizer.from_installed().save(final / TOKENIZER)
    write_text(final / "history.jsonl", "".join(json.dumps(line, sort_keys=True) + "\n" for line in result.history))
    parameters = sum(parameter.numel() for parameter in result.module.model.parameters())
    guard = result.module.guard
    done = {"parameters": parameters, "skipped_batches": guard.skipped, "skipped": guard.records}
    write_json(final / "done.json", {**done, "start": loaded.record() if loaded else None})


@contextlib.contextmanager
def _watch(run_dir: Path, progress: Progress | None) -> Iterator[None]:
    """Pass what rank 0 writes to the progress file on to `progress`, about twice a second."""
    from training.spec import PROGRESS_FILE

    file = run_dir / PROGRESS_FILE
    file.unlink(missing_ok=True)
    stop = threading.Event()

    def poll() -> None:
        last = ""
        while not stop.wait(_POLL_SECONDS):
            text = file.read_text() if file.is_file() else ""
            if text and text != last and progress is not None:
                last = text
                progress(json.loads(text))

    thread = threading.Thread(target=poll, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def _publish(spec: Any, final: Path, out: Path, digests: dict[str, str], workers: int) -> dict[str, Any]:
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
