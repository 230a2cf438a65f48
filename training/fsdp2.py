"""FSDP2: weights, gradients, moments and average divided among the ranks, layer by layer (torch's `fully_shard`).

It computes what DDP computes, and writes the same checkpoints, so that either goes on from the other's.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from lightning.pytorch.strategies import ModelParallelStrategy
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.utils import _pytree as pytree

from training.checkpoints import State
from training.module import Sam3Training
from training.sam3.model import ImageFeatures, Predictions, TextFeatures

_STAGES = ("encode_images", "encode_text", "decode")
_registered = False


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

    def kept_state(self) -> dict[str, Tensor]:
        """As of the base class, put together; all ranks must ask."""
        return {name: full_tensor(value) for name, value in super().kept_state().items()}


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
