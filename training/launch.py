"""Ray around the training core: the only module of `training/` that knows Ray.

Both functions run in the present Ray session, write their output folder in one rename, and pick up
what a killed run left in `run_dir`.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from infra.errors import ServiceError, UsageError
from infra.remote import is_remote
from infra.storage import digest_of
from preprocessing import schema
from preprocessing.schema.licences import why_left_out
from training import recipes
from training.candidate import publish, write_final
from training.failures import Losses, verdict
from training.lora_settings import need_peft, refuse_with
from training.measure import run_evaluation
from training.sam3.licence import preprocessing_of_start, start_licences
from training.spec import (
    FitSpec,
    LoaderSettings,
    RunSettings,
    choose_strategy,
    start_config,
    start_identity,
)

__all__ = ["run_evaluation", "run_training"]

Progress = Callable[[dict[str, Any]], None]

_POLL_SECONDS = 0.5
_NODES_SECONDS = 120  # to wait for nodes after some were lost
LOSSES_FILE = "losses.jsonl"
"""In the run's folder: a line for each lost worker or node."""


def run_training(
    *,
    data_root: Path | str,
    datasets: list[str],
    out: Path,
    params: dict[str, Any],
    run_dir: Path,
    progress: Progress | None = None,
    loader: LoaderSettings | None = None,
) -> dict[str, Any]:
    """Fine-tune with Ray Train and write the candidate folder (docs/architecture.md); return its `train.json`.

    Args:
        data_root: folder of dataset versions, or its fsspec URL (`s3://bucket/data`), whose shards come to a bounded
            local cache as they are needed.
        datasets: names of the versions to train on.
        out: the candidate folder; replaced in one rename at the end.
        params: the `train` section of params.yaml.
        run_dir: machine-local state: Ray Train runs, prepared shards, progress.
        progress: called about twice a second with step, steps, loss, samples_per_s, eta_s.
        loader: how batches are made ready, and where and how large the cache is.

    Raises:
        UsageError: parameters that are wrong or do not go together, a bucket that there is not, or one that the
            credentials of this machine do not open.
        DataError: data that is not there or damaged, or weights that do not fit.
        ServiceError: a store that does not answer.
    """
    recipe = recipes.resolve(params)
    start, start_sha256 = str(params.get("start") or ""), ""
    if start:
        start, start_sha256 = start_identity(start)
        config = start_config(start)
        report = _need_fitting_start(start)
        _refuse_start_licence(start_licences(start, report), str(params.get("licence") or "any"))
        recipe = replace(
            recipe,
            sam3=config["sam3"],
            image_size=config["image_size"],
            preprocessing=preprocessing_of_start(start),
        )
    if recipe.lora is not None:
        refuse_with(recipe.lora, freeze=recipe.freeze, start=start)
        need_peft()
    run_dir = run_dir.resolve()
    run_dir.mkdir(parents=True, exist_ok=True)
    root = str(data_root) if is_remote(str(data_root)) else str(Path(data_root).resolve())
    spec = FitSpec(recipe, root, datasets, str(run_dir), start, loader=loader or LoaderSettings())
    versions = {name: schema.read_dataset_file(folder) for name, folder in spec.folders().items()}
    digests = {name: version["manifest_digest"] for name, version in versions.items()}
    _refuse_evaluation_only(versions)
    _need_train_samples(versions)
    identity = {"recipe": asdict(recipe), "code": recipes.code_sha256(), "digests": digests, "start": start_sha256}
    final = run_dir / "final" / digest_of(identity)[:16]
    workers = int(params.get("workers", 1))
    run = RunSettings(
        strategy=str(params.get("strategy", "auto")),
        # the same inputs find the same run: a killed one goes on from its last checkpoint
        checkpoints=f"{params.get('storage') or run_dir / 'checkpoints'}/{final.name}",
        checkpoint_minutes=float(params.get("checkpoint_minutes", 0)),
        sample_log=bool(params.get("sample_log", False)),
    )
    choose_strategy(recipe, run.strategy, workers, 0, 0)  # what cannot be is refused before anything is started
    spec = replace(spec, run=run)
    if not (final / "done.json").is_file():
        _refuse_too_many(workers)
        _need_storage(run.checkpoints)
        with _watch(run_dir, progress):
            _train(spec, final, workers, int(params.get("min_workers") or workers))
    return publish(spec, final, out, digests, workers)


def _need_fitting_start(start: str) -> dict[str, Any]:
    """Weights that do not fit are the user's to mend: said here, not by workers that are started again and again."""
    from training.sam3.checkpoint import open_checkpoint

    return open_checkpoint(start).report.record()


def _refuse_start_licence(licences: list[dict[str, Any]], limit: str) -> None:
    """`train.licence` holds for the weights that a run starts from as it does for its data."""
    reasons = [f"{one['of']}: {why}" for one in licences if (why := why_left_out(one, limit, "its terms say"))]
    if reasons:
        msg = (
            f"params.yaml: train.start: expected weights that train.licence ({limit}) allows, found "
            f"{'; '.join(reasons)}. Start from others, or set train.licence to any"
        )
        raise UsageError(msg)


def _need_storage(checkpoints: str) -> None:
    """A store that takes no checkpoint is found out now, and not after the first hundred steps."""
    if is_remote(checkpoints):
        from training.checkpoints import CheckpointStore

        CheckpointStore(checkpoints).try_writing()


def _need_train_samples(versions: Mapping[str, dict[str, Any]]) -> None:
    if not any(version["splits"].get("train") for version in versions.values()):
        msg = (
            f"nothing to train on: expected at least one sample in the train split, found none in {', '.join(versions)}"
        )
        raise UsageError(msg)


def _refuse_evaluation_only(versions: Mapping[str, dict[str, Any]]) -> None:
    kept = [name for name, version in versions.items() if version.get("evaluation_only")]
    if kept:
        msg = (
            f"training: expected datasets to train on, found external test sets, which their cards keep for evaluation "
            f"(evaluation_only): {', '.join(kept)}. Take them out of train.datasets in params.yaml; "
            "while `datasets` lists them, they are ingested and evaluated"
        )
        raise UsageError(msg)


def _refuse_too_many(workers: int) -> None:
    import ray

    found = int(ray.cluster_resources().get("CPU", 0))
    if found < workers:
        msg = (
            f"train.workers: expected at most {found}, the CPUs of this Ray session, "
            f"found {workers}. Lower train.workers in params.yaml or start Ray with more CPUs"
        )
        raise UsageError(msg)


def _train(spec: FitSpec, final: Path, workers: int, least: int) -> None:
    """Run attempts until one ends with its weights; a lost worker costs an attempt, a wrong run ends it."""
    from ray.train import ControllerError, WorkerGroupError

    from training.checkpoints import CheckpointStore

    store = CheckpointStore(spec.run.checkpoints)
    losses = Losses(Path(spec.run_dir) / LOSSES_FILE)
    while not (final / "done.json").is_file():
        _wait_for_nodes(least)
        folder = Path(spec.run_dir) / "ray" / f"{final.name}-{losses.count}"
        shutil.rmtree(folder, ignore_errors=True)  # of a killed run: it is our checkpoints that say where it was
        failures: Mapping[int, BaseException]
        try:
            result = _attempt(spec, final, folder, workers, least)
        except WorkerGroupError as error:
            failures = error.worker_failures
        except ControllerError as error:
            failures = {0: error}  # no workers could be had, or the one who starts them died
        else:
            if not (final / "done.json").is_file():
                msg = f"training ended without its weights in {final}: {result.error or f'see {folder}'}"
                raise ServiceError(msg)
            break
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        wrong = verdict(failures)
        if wrong is not None:
            raise wrong from None
        losses.record(failures, store.newest_step(), workers)
    # the run is over and its weights are kept: its checkpoints (optimiser state) are not needed again
    store.remove()


def _wait_for_nodes(least: int) -> None:
    """Return when the living nodes have room for `least` workers."""
    import ray

    deadline = time.monotonic() + _NODES_SECONDS
    while True:
        alive = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        gpus = sum(int(node.get("GPU", 0)) for node in alive)
        room = gpus or sum(int(node.get("CPU", 0)) for node in alive)
        if room >= least:
            return
        if time.monotonic() > deadline:
            msg = (
                f"train: expected a Ray cluster with room for at least {least} workers, found {room} "
                f"{_NODES_SECONDS} s after machines were lost. Start nodes or lower train.min_workers; "
                "the run goes on from its last checkpoint when it is started again"
            )
            raise ServiceError(msg)
        time.sleep(_POLL_SECONDS)


def _attempt(spec: FitSpec, final: Path, folder: Path, workers: int, least: int) -> Any:
    import ray
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer

    resources = ray.cluster_resources()
    trainer = TorchTrainer(
        _rank,
        train_loop_config={"spec": spec, "final": str(final), "cpus": int(resources.get("CPU", 1))},
        scaling_config=ScalingConfig(
            num_workers=workers if least == workers else (least, workers),
            use_gpu=resources.get("GPU", 0) >= least,
        ),
        # Ray tries everything again alike; which failures deserve it is decided in `_train`
        run_config=RunConfig(
            name=folder.name, storage_path=str(folder.parent), failure_config=FailureConfig(max_failures=0)
        ),
    )
    return trainer.fit()


def _rank(config: dict[str, Any]) -> None:
    """One Ray Train worker."""
    import lightning
    import torch
    from ray import train
    from ray.train.lightning import RayDDPStrategy, RayLightningEnvironment
    from ray.train.torch import get_device

    from training import distributed, fsdp2
    from training.checkpoints import CheckpointStore, CheckpointWriter
    from training.fit import fit
    from training.module import Sam3Training

    spec, final = config["spec"], Path(config["final"])
    context = train.get_context()
    rank, world_size = context.get_world_rank(), context.get_world_size()
    torch.set_num_threads(max(1, config["cpus"] // world_size))
    device = get_device()
    kind = distributed.strategy_of(spec, world_size, device)
    writer = CheckpointWriter(CheckpointStore(spec.run.checkpoints))

    def make_trainer(callbacks: list[lightning.Callback]) -> lightning.Trainer:
        if spec.run.sample_log:
            callbacks = [*callbacks, distributed.SampleLog(Path(spec.run_dir) / "samples", rank, world_size)]
        sharded = kind == "fsdp2"
        strategy = fsdp2.Fsdp2Strategy(device) if sharded else RayDDPStrategy(**distributed.DDP_OPTIONS)
        return distributed.make_trainer(spec, strategy, writer, callbacks, plugins=[RayLightningEnvironment()])

    with distributed.resume_point(writer.store, device) as resume:
        result = fit(
            spec,
            rank=rank,
            world_size=world_size,
            barrier=torch.distributed.barrier,
            make_trainer=make_trainer,
            resume=resume,
            module_class=fsdp2.ShardedTraining if kind == "fsdp2" else Sam3Training,
        )
    weights = result.module.kept_state()  # all ranks: it may be divided among them
    if rank == 0:
        write_final(spec, final, result, weights)


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
