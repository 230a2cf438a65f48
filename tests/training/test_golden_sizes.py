"""The golden checks take sizes, cases and layers from the folder: they pass on another one that is shaped unlike set A.

Its figures come from our own model, so that it proves nothing about them; it proves that loading, tests and serving
have no size of the official folder in them.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor
from transformers.models.sam3.configuration_sam3 import Sam3Config

from training.predict import boxes_in_pixels, instances_of, query_scores
from training.sam3.boxes import cxcywh_to_xyxy
from training.sam3.checkpoint import save_official
from training.sam3.layout import to_official
from training.sam3.model import PADDING_LABEL, Predictions, PromptableSam3
from training.sam3.preprocess import official_pixel_values
from training.sam3.tokenizer import PromptTokenizer

ROOT = Path(__file__).parents[2]
SIZE, WIDTH, THRESHOLD = 84, 24, 0.2
IMAGES = [(61, 90), (84, 84), (33, 47)]
TEXTS = ["left lung", "polyp of the colon", "optic disc"]


def _config() -> dict[str, Any]:
    grid = SIZE // 14
    common = {"hidden_size": WIDTH, "num_attention_heads": 3, "intermediate_size": 40, "hidden_act": "relu"}
    return {
        "vision_config": {
            "backbone_config": {
                "model_type": "sam3_vit_model",
                "hidden_size": 48,
                "intermediate_size": 100,
                "num_hidden_layers": 3,
                "num_attention_heads": 3,
                "image_size": SIZE,
                "patch_size": 14,
                "window_size": 3,
                "global_attn_indexes": [2],
                "pretrain_image_size": 42,
                "layer_norm_eps": 1e-5,
                "rope_parameters": {"rope_type": "axial", "rope_theta": 10000.0},
            },
            "fpn_hidden_size": WIDTH,
            "scale_factors": [4.0, 2.0, 1.0, 0.5],
            "backbone_feature_sizes": [[4 * grid, 4 * grid], [2 * grid, 2 * grid], [grid, grid]],
        },
        "text_config": {
            "model_type": "clip_text_model",
            "vocab_size": 49408,
            "hidden_size": 24,
            "intermediate_size": 50,
            "projection_dim": 40,
            "num_hidden_layers": 3,
            "num_attention_heads": 3,
            "max_position_embeddings": 32,
            "hidden_act": "gelu",
        },
        "geometry_encoder_config": {**common, "num_layers": 1, "roi_size": 7},
        "detr_encoder_config": {**common, "num_layers": 1},
        "detr_decoder_config": {**common, "num_layers": 2, "num_queries": 7},
        "mask_decoder_config": {"hidden_size": WIDTH, "num_attention_heads": 3, "num_upsampling_stages": 3},
    }


def _model() -> PromptableSam3:
    model = PromptableSam3(Sam3Config(**_config())).eval()
    draw = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for value in model.state_dict().values():
            value.normal_(0, 0.1, generator=draw)
    return model


def _outputs(case: str, model: PromptableSam3, forward: dict[str, Tensor], processor: dict[str, Any]) -> Predictions:
    """Add a case's tensors to `forward`, and what is kept of it."""
    inside: dict[str, Any] = {}
    hooks = [
        part.register_forward_hook(
            lambda _, args, named, out, name=name: inside.update({name: (named, out)}), with_kwargs=True
        )
        for name, part in (("encoder", model.detr_encoder), ("decoder", model.detr_decoder))
    ]
    prompts = torch.arange(len(TEXTS))
    text = model.encode_text(forward[f"{case}.token_ids"])
    images = model.encode_images(forward["pixel_values"])
    boxes, labels = forward.get(f"{case}.boxes"), forward.get(f"{case}.box_labels")
    found = model.decode(images, text, prompts, prompts, boxes, labels)
    for hook in hooks:
        hook.remove()
    given, encoded = inside["encoder"]
    outputs = {
        "language_features": text.features,
        "language_mask": ~text.mask,
        "prompt": given["text_features"],
        "prompt_mask": ~given["text_mask"],
        "encoder_hidden_states": encoded.last_hidden_state,
        "queries": inside["decoder"][1].intermediate_hidden_states[-1],
        "pred_logits": found.logits[-1].unsqueeze(-1),
        "pred_boxes": found.boxes_cxcywh[-1],
        "pred_boxes_xyxy": cxcywh_to_xyxy(found.boxes_cxcywh[-1]),
        "presence_logit_dec": found.presence[-1].unsqueeze(-1),
        "pred_masks": found.masks,
        "semantic_seg": found.semantic.unsqueeze(1),
    }
    forward |= {f"{case}.{name}": value for name, value in outputs.items()}
    scores = query_scores(found)
    each = [boxes_in_pixels(found, *size)[number] for number, size in enumerate(IMAGES)]
    after = {
        "scores": scores,
        "boxes_xyxy_pixels": torch.stack(each),
        "labels": torch.ones(scores.shape, dtype=torch.long),
    }
    forward |= {f"postprocess_all.{case}.{name}": value for name, value in after.items()}
    # a border between two scores, so that some queries are kept and some are not
    middle = scores.flatten().sort().values[scores.numel() // 2 - 1 :][:2].mean().item()
    for number, (height, width) in enumerate(IMAGES):
        threshold = middle if boxes is not None else 0.5
        kept = instances_of(found, number, height, width, threshold)
        masks = np.stack([item["mask"] for item in kept]) if kept else np.zeros((0, height, width), dtype=bool)
        forward |= {
            f"processor.{case}.{number}.kept_queries": torch.tensor([item["query"] for item in kept], dtype=torch.long),
            f"processor.{case}.{number}.scores": torch.tensor([item["score"] for item in kept]),
            f"processor.{case}.{number}.boxes_xyxy_pixels": torch.tensor([item["bbox_xyxy"] for item in kept]).reshape(
                -1, 4
            ),
            f"processor.{case}.{number}.masks": torch.from_numpy(masks).unsqueeze(1),
        }
        processor[f"{case}.{number}"] = {"threshold": threshold}
    return found


@torch.no_grad()
def write_golden(folder: Path) -> None:
    """A folder of the golden form: weights, inputs, outputs."""
    model = _model()
    config = Sam3Config(**_config())
    official = {name: value.contiguous().clone() for name, value in to_official(model.state_dict()).items()}
    save_file(official, folder / "official_tiny.safetensors")
    save_official(folder / "official_tiny_sam3.pt", config, model.state_dict())
    (folder / "config.json").write_text(json.dumps({"sam3_config": _config()}))
    draw = np.random.default_rng(5)
    pictures = [draw.integers(0, 256, (*size, 3), dtype=np.uint8) for size in IMAGES]
    forward: dict[str, Tensor] = {f"images.{number}": torch.from_numpy(each) for number, each in enumerate(pictures)}
    forward["pixel_values"] = torch.stack([official_pixel_values(each, SIZE) for each in pictures])
    features = model.encode_images(forward["pixel_values"])
    grid = SIZE // 14
    rows = model.vision_encoder.backbone(forward["pixel_values"]).last_hidden_state
    forward["vit_last"] = rows.reshape(len(pictures), grid * grid, -1).transpose(1, 2).unflatten(2, (grid, grid))
    forward |= {f"fpn.{number}": level for number, level in enumerate(features.levels)}
    forward[f"fpn_pos.{len(features.positions) - 1}"] = features.positions[-1][:1]
    tokenizer, processor, cases = PromptTokenizer.from_installed(), {}, {}
    given = {
        "text": None,
        "text_box": torch.tensor([[1], [0], [1]]),
        "mixed": torch.tensor([[1, 0], [1, PADDING_LABEL], [0, 1]]),
    }
    for case, labels in given.items():
        cases[case] = {"texts": TEXTS}
        forward[f"{case}.token_ids"] = tokenizer(TEXTS)
        if labels is not None:
            forward[f"{case}.boxes"] = (
                torch.rand(*labels.shape, 4, generator=torch.Generator().manual_seed(1)) * 0.4 + 0.2
            )
            forward[f"{case}.box_labels"] = labels
        _outputs(case, model, forward, processor)
    model.train()
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    prompts = torch.arange(len(TEXTS))
    text = model.encode_text(forward["text_box.token_ids"])
    boxes = forward["text_box.boxes"], forward["text_box.box_labels"]
    found = model.decode(features, text, prompts, prompts, *boxes, one_to_many=True)
    assert found.one_to_many is not None
    forward |= {
        "layers.presence_logit_dec": found.presence.unsqueeze(-1),
        "layers.pred_masks_o2m": found.one_to_many.masks,
    }
    for ending, part in (("", found), ("_o2m", found.one_to_many)):
        forward[f"layers.pred_logits{ending}"] = part.logits.unsqueeze(-1)
        forward[f"layers.pred_boxes{ending}"] = part.boxes_cxcywh
        forward[f"layers.pred_boxes_xyxy{ending}"] = cxcywh_to_xyxy(part.boxes_cxcywh)
    save_file({name: value.contiguous().clone() for name, value in forward.items()}, folder / "forward.safetensors")
    record = {"cases": cases, "processor": processor, "keys_without_any_effect_on_the_recorded_outputs": []}
    (folder / "forward.json").write_text(json.dumps(record))


@pytest.mark.slow
def test_a_folder_of_other_sizes_passes_too(tmp_path: Path) -> None:
    write_golden(tmp_path)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "tests/training/test_golden_forward.py", "-q", "-p", "no:cacheprovider"],
        cwd=ROOT,
        env={**os.environ, "SEGFOUNDRY_GOLDEN": str(tmp_path), "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout[-3000:]
    assert "skipped" not in done.stdout
