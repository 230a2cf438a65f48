"""SAM3's own tracker beside a detector whose vision encoder it shares.

`Sam3VideoModel` of transformers holds a detector, a neck of the tracker's own on the detector's ViT, and the tracker;
here the detector is ours, and the other two keep transformers' names (`tracker_neck.`, `tracker_model.`), so that the
tensors of a published video model fit. The ViT runs once a slice for both.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers.models.sam3.configuration_sam3 import Sam3Config
from transformers.models.sam3.modeling_sam3 import Sam3VisionNeck
from transformers.models.sam3_tracker_video.configuration_sam3_tracker_video import Sam3TrackerVideoConfig
from transformers.models.sam3_tracker_video.modeling_sam3_tracker_video import (
    Sam3TrackerVideoInferenceSession,
    Sam3TrackerVideoModel,
)

from infra.errors import DataError
from training.sam3.checkpoint import save_weights
from training.sam3.model import PromptableSam3

TRACKER = "tracker.safetensors"
"""File of a model folder."""

_OFFICIAL_WIDTH = 256
_OFFICIAL_LAYERS = 4  # of memory attention
_SMALL_LAYERS = 2


def tracker_config(sam3: Sam3Config) -> Sam3TrackerVideoConfig:
    """The official tracker's plan at the detector's size: every width keeps its share of the official 256.

    At the official width it is the official configuration. Below it memory attention has two layers, nothing is
    dropped out, and one mask is predicted and not three, since choosing among three has to be learned first.
    """
    vision = sam3.vision_config
    size, width = int(vision.backbone_config.image_size), int(vision.fpn_hidden_size)
    small = width < _OFFICIAL_WIDTH
    changes: dict[str, Any] = {}
    if small:
        changes = {
            "multimask_output_in_sam": False,
            "memory_attention_dropout": 0.0,
            "memory_attention_rope_dropout": 0.0,
        }
    heads = int(sam3.detr_decoder_config.num_attention_heads)
    return Sam3TrackerVideoConfig(
        vision_config=vision.to_dict(),
        prompt_encoder_config={
            "hidden_size": width,
            "image_size": size,
            "patch_size": int(vision.backbone_config.patch_size),
        },
        mask_decoder_config={
            "hidden_size": width,
            "mlp_dim": 8 * width,
            "num_attention_heads": heads,
            "iou_head_hidden_dim": width,
            "dynamic_multimask_via_stability": not small,
        },
        image_size=size,
        memory_attention_hidden_size=width,
        memory_attention_num_layers=_SMALL_LAYERS if small else _OFFICIAL_LAYERS,
        memory_attention_feed_forward_hidden_size=8 * width,
        memory_encoder_hidden_size=width,
        memory_encoder_output_channels=width // 4,
        mask_downsampler_embed_dim=width,
        memory_fuser_embed_dim=width,
        memory_fuser_intermediate_dim=4 * width,
        **changes,
    )


class VolumeTracker(nn.Module):
    """Neck and tracker; slices are the frames of a video."""

    def __init__(self, sam3: Sam3Config) -> None:
        super().__init__()
        config = tracker_config(sam3)
        self.tracker_neck = Sam3VisionNeck(sam3.vision_config)
        self.tracker_model = Sam3TrackerVideoModel(config, remove_vision_encoder=True)
        for layer in self.tracker_model.memory_attention.layers:
            _fit_memory(layer.cross_attn_image, int(config.memory_encoder_output_channels))
        self.image_size = int(config.image_size)

    @classmethod
    def load(cls, folder: Path, sam3: Sam3Config) -> VolumeTracker:
        """The tracker of a model folder, in evaluation mode. DataError where it is not there or does not fit."""
        file = folder / TRACKER
        if not file.is_file():
            msg = f"{folder}: expected {TRACKER}, found none. Run: python -m training.volumes.fit_tracker"
            raise DataError(msg)
        tracker = cls(sam3)
        tracker.take(load_file(file), file)
        return tracker.eval()

    def take(self, state: Mapping[str, Tensor], source: str | Path) -> None:
        """Copy weights into this model, strictly. DataError lists what does not fit."""
        own = self.state_dict()
        wrong = sorted(own.keys() ^ state.keys())
        wrong += [name for name in own.keys() & state.keys() if own[name].shape != state[name].shape]
        if wrong:
            msg = f"{source}: expected the {len(own)} tensors of a tracker of this size, {len(wrong)} do not fit: "
            raise DataError(msg + ", ".join(wrong[:20]))
        self.load_state_dict(dict(state), strict=True)

    def save(self, folder: Path) -> str:
        """Write `tracker.safetensors` of a model folder; return its SHA-256."""
        return save_weights(folder / TRACKER, self.state_dict())

    def features(self, hidden_states: Tensor) -> list[dict[str, Any]]:
        """What a session keeps of each slice, as `Sam3VideoModel.get_vision_features_for_tracker` computes it.

        Args:
            hidden_states: (slices, patches, channels), the ViT's output (`backbone_states`).
        """
        rows, columns = self.tracker_model.prompt_encoder.image_embedding_size
        grid = hidden_states.view(len(hidden_states), rows, columns, -1).permute(0, 3, 1, 2)
        levels, positions = self.tracker_neck(grid)
        maps = list(levels[:-1])
        maps[0] = self.tracker_model.mask_decoder.conv_s0(maps[0])
        maps[1] = self.tracker_model.mask_decoder.conv_s1(maps[1])
        return [
            {
                "vision_feats": [each[number : number + 1].flatten(2).permute(2, 0, 1) for each in maps],
                "vision_pos_embeds": [each[:1].flatten(2).permute(2, 0, 1) for each in positions[:-1]],
            }
            for number in range(len(hidden_states))
        ]

    def session(self, features: list[dict[str, Any]]) -> Sam3TrackerVideoInferenceSession:
        """A session over slices whose features are known; it never asks for their pixels."""
        session = Sam3TrackerVideoInferenceSession(
            video=torch.zeros(len(features), 3, 1, 1),
            video_height=self.image_size,
            video_width=self.image_size,
            max_vision_features_cache_size=len(features),
            dtype=torch.float32,
        )
        for number, each in enumerate(features):
            session.cache.cache_vision_features(number, each)
        return session


def _fit_memory(attention: nn.Module, channels: int) -> None:
    """Let keys and values come from a memory of `channels`: transformers' code has the official 64 for any config."""
    for name in ("k_proj", "v_proj"):
        old = getattr(attention, name)
        if old.in_features != channels:
            setattr(attention, name, nn.Linear(channels, old.out_features))


def add_mask(session: Sam3TrackerVideoInferenceSession, frame: int, mask: Tensor) -> int:
    """Give a new object by its mask (rows, columns), 0 or 1, on one frame; return its place in the session."""
    name = session.get_obj_num() + 1
    place: int = session.obj_id_to_idx(name)
    session.add_mask_inputs(place, frame, mask[None, None].float())
    session.obj_with_new_inputs = [name]
    return place


@torch.no_grad()
def backbone_states(model: PromptableSam3, pixel_values: Tensor) -> Tensor:
    """The shared ViT's output (slices, patches, channels) for slices (slices, 3, size, size), −1..1."""
    states: Tensor = model.vision_encoder.backbone(pixel_values).last_hidden_state
    return states


def initialise_tracker(tracker: VolumeTracker, seed: int) -> None:
    """Set every parameter for training from nothing, repeatably: as `training.sam3.init` does for the detector."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for module in tracker.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight, generator=generator)
                if module.bias is not None:
                    module.bias.zero_()
            elif isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu", generator=generator)
                if module.bias is not None:
                    module.bias.zero_()
            elif isinstance(module, nn.LayerNorm | nn.GroupNorm):
                module.weight.fill_(1.0)
                module.bias.zero_()
            elif isinstance(module, nn.Embedding):
                module.weight.normal_(0.0, 1.0, generator=generator)
        for parameter in tracker.tracker_model.parameters(recurse=False):
            parameter.normal_(0.0, 0.02, generator=generator)
        for name, parameter in tracker.tracker_model.named_parameters():
            if name.endswith(".scale"):  # of the fuser's residual branches: 1e-6 officially, too slow from nothing
                parameter.fill_(0.1)
        # one table of frequencies, which transformers keeps twice
        frequencies = tracker.tracker_model.shared_image_embedding.positional_embedding
        frequencies.normal_(0.0, 1.0, generator=generator)
        tracker.tracker_model.prompt_encoder.shared_embedding.positional_embedding.copy_(frequencies)
