"""A run over several processes: strategies, when to save, where to go on from. Knows no Ray.

`ddp` keeps all state on every rank. `fsdp2` (torch's `fully_shard`) divides weights, gradients, optimiser state
and average among the ranks, and computes the same. A checkpoint is the same file either way, so that one resumes
under the other.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.fabric.plugins import CheckpointIO
from lightning.pytorch.strategies import ModelParallelStrategy
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.utils import _pytree as pytree
from transformers.models.sam3.configuration_sam3 import Sam3Config

from training.checkpoints import CheckpointStore, CheckpointWriter, State, load_state, stem_of
from training.module import Sam3Training
from training.sam3.model import ImageFeatures, Predictions, PromptableSam3, TextFeatures
from training.spec import FitSpec, choose_strategy

DDP_OPTIONS = {"find_unused_parameters": True, "gradient_as_bucket_view": True}
_STAGES = ("encode_images", "encode_text", "decode")
_AVERAGE = "average."
_registered = False


def strategy_of(spec: FitSpec, world_size: int, device: torch.device) -> str:
    """`ddp` or `fsdp2` for a run; see `choose_strategy`."""
    device_bytes = torch.cuda.get_device_properties(device).total_memory if device.type == "cuda" else 0
    parameters = 0
    if spec.run.strategy == "auto" and device_bytes:
        with torch.device("meta"):
            model = PromptableSam3(Sam3Config(**spec.recipe.sam3))
        parameters = sum(parameter.numel() for parameter in model.parameters())
    return choose_strategy(spec.recipe, spec.run.strategy, world_size, device_bytes, parameters)


def full_tensor(value: Any) -> Any:
    """A divided tensor put together (all ranks must ask), anything else as it is."""
    return value.full_tensor() if isinstance(value, DTensor) else value


def like(full: Tensor, divided: Tensor) -> Tensor:
    """This rank's part of `full`, divided as `divided` is; nothing is sent."""
    if not isinstance(divided, DTensor):
        return full
    full = full.to(divided.device_mesh.device_type)
    return distribute_tensor(full, divided.device_mesh, divided.placements, src_data_rank=None)


class ShardedTraining(Sam3Training):
    """The same training with everything that is as large as the weights divided among the ranks."""

    def configure_model(self) -> None:
        """Divide layers one by one, so that one layer at a time is whole in memory; then the average likewise."""
        if any(isinstance(parameter, DTensor) for parameter in self.model.parameters()):
            return
        _register_outputs()
        mesh = init_device_mesh(self.trainer.strategy.root_device.type, (self.trainer.world_size,))
        for layer in _layers(self.model):
            fully_shard(layer, mesh=mesh)
        fully_shard(self.model, mesh=mesh)
        for stage in _STAGES:
            register_fsdp_forward_method(self.model, stage)
        divided = {name.replace(".", "/"): value for name, value in self.model.named_parameters()}
        for name in list(self.average):
            self.average[name] = nn.Parameter(divided[name].detach().clone(), requires_grad=False)

    def averaged_state(self) -> dict[str, Tensor]:
        """As of the base class, put together; all ranks must ask."""
        return {name: full_tensor(value) for name, value in super().averaged_state().items()}


def _layers(model: nn.Module) -> list[nn.Module]:
    """The outermost members of all lists of layers: of the vision and text encoders, of DETR, of the mask head."""
    found: dict[str, nn.Module] = {}
    for name, module in model.named_modules():
        parent, _, _ = name.rpartition(".")
        listed = isinstance(model.get_submodule(parent), nn.ModuleList) and not isinstance(module, nn.ModuleList)
        nested = any(name.startswith(f"{outer}.") for outer in found)
        if listed and not nested and any(True for _ in module.parameters()):
            found[name] = module
    return list(found.values())


def _register_outputs() -> None:
    """Let FSDP find the tensors in what the stages take and return: it hangs its backward hooks on them."""
    global _registered
    if _registered:
        return
    for each in (ImageFeatures, TextFeatures, Predictions):
        pytree.register_dataclass(each)
    _registered = True


class Fsdp2Strategy(ModelParallelStrategy):
    """Lightning's strategy for `fully_shard`, for CPU (gloo) and GPUs, with checkpoints exactly as DDP's.

    Lightning's own would write a folder per checkpoint, or rename the optimiser's state; here each tensor is put
    together on rank 0, and each rank takes its part of what is loaded.
    """

    def __init__(self, device: torch.device | None = None, **options: Any) -> None:
        """`device` of this rank, where the launcher knows it."""
        super().__init__(save_distributed_checkpoint=False, **options)
        self._device = device

    @property
    def root_device(self) -> torch.device:
        """This rank's device."""
        return self._device if self._device is not None else super().root_device

    @property
    def distributed_sampler_kwargs(self) -> dict[str, Any]:
        """For samplers, which the stream does without."""
        return {"num_replicas": self.world_size, "rank": self.global_rank}

    @property
    def lightning_restore_optimizer(self) -> bool:
        """Through `load_optimizer_state_dict` below."""
        return True

    def _determine_device_ids(self) -> list[int]:
        return [self.root_device.index or 0]

    def setup_environment(self) -> None:
        """Ranks find each other; the mesh is made where the model is divided."""
        self._data_parallel_size, self._tensor_parallel_size = self.world_size, 1
        super().setup_environment()

    def lightning_module_state_dict(self) -> dict[str, Any]:
        """All tensors whole, on rank 0; all ranks must ask."""
        assert self.lightning_module is not None
        state: dict[str, Any] = self._gathered(self.lightning_module.state_dict())
        return state

    def optimizer_state(self, optimizer: Any) -> dict[str, Any]:
        """The state as `torch.optim` has it, whole, on rank 0; all ranks must ask."""
        state: dict[str, Any] = self._gathered(getattr(optimizer, "_optimizer", optimizer).state_dict())
        return state

    def _gathered(self, value: Any) -> Any:
        """`value` with whole tensors on the CPU; other ranks than 0 keep none of them."""
        if isinstance(value, Tensor):
            whole = full_tensor(value.detach())
            return whole.to("cpu") if self.is_global_zero else None
        if isinstance(value, dict):
            return {key: self._gathered(item) for key, item in value.items()}
        if isinstance(value, (list, tuple)):
            return type(value)(self._gathered(item) for item in value)
        return value

    def save_checkpoint(self, checkpoint: State, filepath: Any, storage_options: Any = None) -> None:
        """Hand it to the CheckpointIO on rank 0."""
        if self.is_global_zero:
            self.checkpoint_io.save_checkpoint(checkpoint, filepath, storage_options=storage_options)

    def load_checkpoint(self, checkpoint_path: Any, weights_only: bool | None = None) -> State:
        """Each rank reads the file, and takes its part below."""
        state: State = self.checkpoint_io.load_checkpoint(checkpoint_path)
        return state

    def load_model_state_dict(self, checkpoint: Mapping[str, Any], strict: bool = True) -> None:
        """This rank's part of the weights and the average."""
        assert self.lightning_module is not None
        here = self.lightning_module.state_dict()
        found = {
            name: like(value, here[name]) if name in here else value
            for name, value in dict(checkpoint["state_dict"]).items()
        }
        self.lightning_module.load_state_dict(found, strict=strict)

    def load_optimizer_state_dict(self, checkpoint: Mapping[str, Any]) -> None:
        """This rank's part of the moments."""
        for optimizer, state in zip(self.optimizers, checkpoint["optimizer_states"], strict=True):
            parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
            parts = {
                number: {
                    name: like(item, parameters[number]) if _as_large(item, parameters[number]) else item
                    for name, item in entry.items()
                }
                for number, entry in state["state"].items()
            }
            optimizer.load_state_dict({**state, "state": parts})


def _as_large(item: Any, parameter: Tensor) -> bool:
    return isinstance(item, Tensor) and item.shape == parameter.shape and item.ndim > 0


class StoreIO(CheckpointIO):
    """Lightning's way to write and read checkpoints, through a store and in a thread."""

    def __init__(self, writer: CheckpointWriter) -> None:
        super().__init__()
        self._writer = writer

    def save_checkpoint(self, checkpoint: State, path: Any, storage_options: Any = None) -> None:
        """Begin to write the checkpoint of its step; `path` is only a name."""
        self._writer.save(int(checkpoint["global_step"]), checkpoint)

    def load_checkpoint(self, path: Any, map_location: Any = None, weights_only: bool | None = None) -> State:
        """Tensors and plain values of a local file, whatever `weights_only` says."""
        return load_state(Path(path))

    def remove_checkpoint(self, path: Any) -> None:
        """The store removes what is old."""

    def teardown(self) -> None:
        """Finish what is being written."""
        self._writer.wait()


class KeepCheckpoints(lightning.Callback):
    """Saves every `steps` optimiser steps, `minutes` after the one before, and at the last step.

    Between two steps, when the next one begins: at the end of a batch Lightning asks callbacks before the module, whose
    average has not moved by then.
    """

    def __init__(self, writer: CheckpointWriter, steps: int, minutes: float) -> None:
        self._writer, self._steps, self._minutes = writer, steps, minutes
        self._saved_at = time.monotonic()
        self._saved_step = 0

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """What a run goes on from need not be saved again."""
        self._saved_step, self._saved_at = trainer.global_step, time.monotonic()

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        """Save where it is time; all ranks come to the same verdict."""
        step = trainer.global_step
        if step != self._saved_step and (step % self._steps == 0 or self._overdue(trainer)):
            self._save(trainer)

    def _save(self, trainer: Any) -> None:
        self._saved_step, self._saved_at = trainer.global_step, time.monotonic()
        trainer.save_checkpoint(stem_of(self._saved_step))

    def _overdue(self, trainer: Any) -> bool:
        if self._minutes <= 0:
            return False
        due = torch.tensor(time.monotonic() - self._saved_at >= 60 * self._minutes, device=trainer.strategy.root_device)
        if _distributed():
            vote = due.to(torch.int32)
            torch.distributed.broadcast(vote, 0)  # clocks differ: rank 0's decides
            due = vote > 0
        return bool(due)

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        """A run is not over before its last checkpoint is written."""
        if trainer.global_step != self._saved_step:
            self._save(trainer)
        self._writer.wait()


class SampleLog(lightning.Callback):
    """One line a step and rank: which samples the step saw. A file per process, none is written twice."""

    def __init__(self, folder: Path, rank: int, world_size: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        name = f"{time.time_ns():020d}-{os.getpid()}-rank{rank}-of-{world_size}.jsonl"
        self._rank = rank
        self._file = (folder / name).open("w", encoding="utf-8", buffering=1)

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """`step` counts from 1, as `global_step` does after it."""
        line = {"step": trainer.global_step, "rank": self._rank, "sample_ids": batch.sample_ids}
        self._file.write(json.dumps(line) + "\n")

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        """Close the file."""
        self._file.close()


@contextmanager
def resume_point(store: CheckpointStore, device: torch.device) -> Iterator[Path | None]:
    """A local file of the checkpoint to go on from, the same one on all ranks, who must all ask; None to begin.

    Rank 0 chooses, so that no rank goes on from another step than the others.
    """
    if not _distributed():
        store.clean()
        with store.opened() as found:
            yield found[1] if found else None
        return
    with ExitStack() as stack:
        found = None
        if torch.distributed.get_rank() == 0:
            store.clean()
            found = stack.enter_context(store.opened())
        told = torch.tensor(found[0] if found else -1, dtype=torch.int64, device=device)
        torch.distributed.broadcast(told, 0)
        if found is None and int(told) >= 0:
            found = stack.enter_context(store.opened(int(told)))
        yield found[1] if found else None


def make_trainer(
    spec: FitSpec,
    strategy: Any,
    writer: CheckpointWriter,
    callbacks: Sequence[lightning.Callback],
    *,
    plugins: Sequence[Any] = (),
    devices: int | str = "auto",
    accelerator: str = "auto",
) -> lightning.Trainer:
    """A Trainer that runs to the recipe's last step and keeps checkpoints."""
    recipe = spec.recipe
    keep = KeepCheckpoints(writer, recipe.checkpoint_every, spec.run.checkpoint_minutes)
    return lightning.Trainer(
        max_steps=recipe.steps,
        max_epochs=-1,
        accelerator=accelerator,
        devices=devices,
        strategy=strategy,
        plugins=[*plugins, StoreIO(writer)],
        callbacks=[*callbacks, keep],
        gradient_clip_val=recipe.clip_norm,
        precision="bf16-mixed" if torch.cuda.is_available() and accelerator != "cpu" else "32-true",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )


def _distributed() -> bool:
    return torch.distributed.is_available() and torch.distributed.is_initialized()
