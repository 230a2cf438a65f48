"""The model, its input and its serving against what the official SAM3 code computes with the same weights."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from tests.training import golden as values
from training.predict import Segmenter, boxes_in_pixels, instances_of, query_scores
from training.sam3.boxes import cxcywh_to_xyxy
from training.sam3.checkpoint import load_checkpoint
from training.sam3.layout import to_official
from training.sam3.model import PADDING_LABEL, Predictions, PromptableSam3
from training.sam3.preprocess import official_pixel_values

TOLERANCE, PIXELS, SCORES = 1e-4, 2e-3, 1e-5
CASES = values.cases("forward")
PROCESSED = [case for case in CASES if not values.folder() or f"processor.{case}.0.scores" in values.tensors("forward")]
LAYERED_CASE = "text_box"  # the one that was run in training mode, too


@pytest.fixture(scope="module")
def model(golden: Path) -> PromptableSam3:
    loaded, _ = load_checkpoint(golden / "official_tiny_sam3.pt")
    return loaded


@pytest.fixture(scope="module")
def forward(golden: Path) -> dict[str, Tensor]:
    return values.tensors("forward")


@dataclass
class Run:
    """Our outputs for a case, and what went on inside."""

    predictions: Predictions
    prompt: Tensor
    prompt_mask: Tensor
    encoded: Tensor
    queries: Tensor


def _decode(model: PromptableSam3, forward: dict[str, Tensor], case: str, **options: Any) -> Predictions:
    pixels, ids = forward["pixel_values"], forward[f"{case}.token_ids"]
    prompts = torch.arange(len(ids))
    return model.decode(
        model.encode_images(pixels),
        model.encode_text(ids),
        prompts,
        prompts,
        forward.get(f"{case}.boxes"),
        forward.get(f"{case}.box_labels"),
        **options,
    )


@pytest.fixture(scope="module")
def runs(model: PromptableSam3, forward: dict[str, Tensor]) -> dict[str, Run]:
    found: dict[str, Run] = {}
    inside: dict[str, Any] = {}

    def look(name: str) -> Any:
        return lambda module, arguments, named, output: inside.update({name: (named, output)})

    hooks = [
        part.register_forward_hook(look(name), with_kwargs=True)
        for name, part in (("encoder", model.detr_encoder), ("decoder", model.detr_decoder))
    ]
    with torch.no_grad():
        for case in CASES:
            predictions = _decode(model, forward, case)
            given, encoded = inside["encoder"]
            queries = inside["decoder"][1].intermediate_hidden_states[-1]
            found[case] = Run(
                predictions, given["text_features"], given["text_mask"], encoded.last_hidden_state, queries
            )
    for hook in hooks:
        hook.remove()
    return found


def _close(found: Tensor, wanted: Tensor, tolerance: float = TOLERANCE) -> None:
    torch.testing.assert_close(found, wanted, atol=tolerance, rtol=0.0)


def test_both_official_files_hold_the_same_model_and_come_back_bit_for_bit(golden: Path, model: PromptableSam3) -> None:
    """Also the tensors without any effect on an output, which only their values can check."""
    other, report = load_checkpoint(golden / "official_tiny.safetensors")
    assert all(torch.equal(value, other.state_dict()[name]) for name, value in model.state_dict().items())
    official = load_file(golden / "official_tiny.safetensors")
    back = to_official(other.state_dict())
    assert len(back) == report.used == len(official) - sum(report.aside.values())
    for name, value in back.items():
        wanted = official[name][:, 1:] if name.endswith("trunk.pos_embed") else official[name]
        assert torch.equal(value[:, 1:] if name.endswith("trunk.pos_embed") else value, wanted), name
    silent = values.record("forward")["keys_without_any_effect_on_the_recorded_outputs"]
    assert all(name in back or name.startswith("geometry_encoder.points_") for name in silent)


def test_pixels_are_the_official_processors(forward: dict[str, Tensor]) -> None:
    size = forward["pixel_values"].shape[-1]
    for number, wanted in enumerate(forward["pixel_values"]):
        _close(official_pixel_values(forward[f"images.{number}"].numpy(), size), wanted, 1e-6)


def test_vision_features(model: PromptableSam3, forward: dict[str, Tensor]) -> None:
    with torch.no_grad():
        features = model.encode_images(forward["pixel_values"])
        trunk = model.vision_encoder.backbone(forward["pixel_values"]).last_hidden_state
    wanted = [value for name, value in forward.items() if re.fullmatch(r"fpn\.\d+", name)]
    by_size = {value.shape[-1]: value for value in wanted}
    assert len(features.levels) == len(by_size) == len(wanted)
    for level in features.levels:
        _close(level, by_size[level.shape[-1]])
    positions = {value.shape[-1]: value for name, value in forward.items() if name.startswith("fpn_pos.")}
    compared = [p for p in features.positions if p.shape[-1] in positions]
    assert len(compared) == len(positions)
    for position in compared:
        _close(position, positions[position.shape[-1]].expand_as(position))
    rows = forward["vit_last"].flatten(2).transpose(1, 2)
    _close(trunk.reshape(rows.shape), rows)


@pytest.mark.parametrize("case", CASES)
def test_text_features_and_the_prompt(
    model: PromptableSam3, forward: dict[str, Tensor], runs: dict[str, Run], case: str
) -> None:
    with torch.no_grad():
        text = model.encode_text(forward[f"{case}.token_ids"])
    assert torch.equal(~text.mask, forward[f"{case}.language_mask"])
    _close(text.features[text.mask], forward[f"{case}.language_features"][text.mask])
    valid = ~forward[f"{case}.prompt_mask"]
    length = valid.shape[1]
    # ours may have a place more, for the box that is not there in a text-only call
    assert torch.equal(runs[case].prompt_mask[:, :length].bool(), valid)
    assert not bool(runs[case].prompt_mask[:, length:].any())
    _close(runs[case].prompt[:, :length][valid], forward[f"{case}.prompt"][valid])


@pytest.mark.parametrize("case", CASES)
def test_outputs_of_the_head(forward: dict[str, Tensor], runs: dict[str, Run], case: str) -> None:
    run, found = runs[case], runs[case].predictions
    pairs = {
        "encoder_hidden_states": run.encoded,
        "queries": run.queries,
        "pred_logits": found.logits[-1].unsqueeze(-1),
        "pred_boxes": found.boxes_cxcywh[-1],
        "pred_boxes_xyxy": cxcywh_to_xyxy(found.boxes_cxcywh[-1]),
        "presence_logit_dec": found.presence[-1].unsqueeze(-1),
        "pred_masks": found.masks,
        "semantic_seg": found.semantic.unsqueeze(1),
    }
    for name, value in pairs.items():
        _close(value, forward[f"{case}.{name}"])


def test_all_layers_and_both_sets_of_queries_in_training(
    golden: Path, model: PromptableSam3, forward: dict[str, Tensor]
) -> None:
    trained, _ = load_checkpoint(golden / "official_tiny_sam3.pt")
    trained.train()
    for module in trained.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    found = _decode(trained, forward, LAYERED_CASE, one_to_many=True)
    assert found.one_to_many is not None
    with torch.no_grad():
        alone = _decode(model, forward, LAYERED_CASE)
    pairs = {
        "pred_logits": found.logits.unsqueeze(-1),
        "pred_boxes": found.boxes_cxcywh,
        "pred_boxes_xyxy": cxcywh_to_xyxy(found.boxes_cxcywh),
        "presence_logit_dec": found.presence.unsqueeze(-1),
        "pred_logits_o2m": found.one_to_many.logits.unsqueeze(-1),
        "pred_boxes_o2m": found.one_to_many.boxes_cxcywh,
        "pred_boxes_xyxy_o2m": cxcywh_to_xyxy(found.one_to_many.boxes_cxcywh),
        "pred_masks_o2m": found.one_to_many.masks,
    }
    for name, value in pairs.items():
        _close(value, forward[f"layers.{name}"])
    # the second set of queries changes nothing for the first, and each of its tensors has a gradient
    for name in ("logits", "boxes_cxcywh", "presence", "masks", "semantic"):
        _close(getattr(found, name), getattr(alone, name), 1e-5 * 3)
    (found.one_to_many.logits.sum() + found.one_to_many.boxes_cxcywh.sum() + found.one_to_many.masks.sum()).backward()
    assert trained.detr_decoder.query_embed.weight.grad is not None


def _sizes(forward: dict[str, Tensor], case: str) -> list[tuple[int, int]]:
    return [tuple(forward[f"images.{number}"].shape[:2]) for number in range(len(forward[f"{case}.token_ids"]))]


@pytest.mark.parametrize("case", PROCESSED)
def test_what_the_official_processor_keeps(forward: dict[str, Tensor], runs: dict[str, Run], case: str) -> None:
    """Kept queries, scores, boxes and full-size masks of each image."""
    recorded = values.record("forward")["processor"]
    for number, (height, width) in enumerate(_sizes(forward, case)):
        key = f"processor.{case}.{number}"
        threshold = recorded[f"{case}.{number}"]["threshold"]
        found = instances_of(runs[case].predictions, number, height, width, threshold)
        _compare_kept(found, forward, key, height, width)


def _compare_kept(found: list[dict[str, Any]], forward: dict[str, Tensor], key: str, height: int, width: int) -> None:
    assert [item["query"] for item in found] == forward[f"{key}.kept_queries"].tolist()
    scores = torch.tensor([item["score"] for item in found])
    _close(scores, forward[f"{key}.scores"], SCORES)
    boxes = torch.tensor([item["bbox_xyxy"] for item in found]).reshape(-1, 4)
    inside = torch.tensor([width, height, width, height], dtype=torch.float32)
    # ours end at the border of the image
    _close(boxes, torch.minimum(forward[f"{key}.boxes_xyxy_pixels"].clamp(min=0), inside), PIXELS)
    wanted = forward[f"{key}.masks"].squeeze(1).numpy()
    assert wanted.shape[1:] == (height, width)
    masks = np.stack([item["mask"] for item in found]) if found else np.zeros_like(wanted)
    assert np.count_nonzero(masks != wanted) <= 1e-4 * max(1, wanted.size) + 2


@pytest.mark.parametrize("case", PROCESSED)
def test_all_queries_after_the_official_postprocessing(
    forward: dict[str, Tensor], runs: dict[str, Run], case: str
) -> None:
    start = f"postprocess_all.{case}"
    predictions = runs[case].predictions
    _close(query_scores(predictions), forward[f"{start}.scores"], SCORES)
    for number, (height, width) in enumerate(_sizes(forward, case)):
        boxes = boxes_in_pixels(predictions, height, width)[number]
        _close(boxes, forward[f"{start}.boxes_xyxy_pixels"][number], PIXELS)
    assert bool((forward[f"{start}.labels"] == 1).all()), "one label: SAM3's prompt is the class"


def test_published_weights_serve_text_prompts_as_the_official_processor(
    golden: Path, forward: dict[str, Tensor]
) -> None:
    """From the raw image and the raw text to masks, through what serves: file, tokenizer, pixels, head, threshold."""
    segmenter = Segmenter.of_checkpoint(golden / "official_tiny_sam3.pt")
    case = next(name for name in CASES if f"{name}.boxes" not in forward)
    for number, text in enumerate(values.record("forward")["cases"][case]["texts"]):
        image = forward[f"images.{number}"].numpy()
        (result,) = segmenter.segment(image, [text])
        _compare_kept(result["instances"], forward, f"processor.{case}.{number}", *image.shape[:2])


def test_a_box_that_is_not_there_changes_nothing(model: PromptableSam3, forward: dict[str, Tensor]) -> None:
    case = next(name for name in CASES if f"{name}.boxes" not in forward)
    count = len(forward[f"{case}.token_ids"])
    padded = {**forward, f"{case}.boxes": torch.rand(count, 3, 4)}
    padded[f"{case}.box_labels"] = torch.full((count, 3), PADDING_LABEL)
    with torch.no_grad():
        first, second = _decode(model, forward, case), _decode(model, padded, case)
    _close(first.semantic, second.semantic, 1e-5)
    _close(first.logits, second.logits, 1e-4)


KNOWN = (
    r"images\.\d+|pixel_values|vit_last|fpn\.\d+|fpn_pos\.\d+",
    r"CASE\.(token_ids|boxes|box_labels|language_features|language_mask|prompt|prompt_mask)",
    r"CASE\.(encoder_hidden_states|queries|pred_logits|pred_boxes|pred_boxes_xyxy|presence_logit_dec)",
    r"CASE\.(pred_masks|semantic_seg)",
    r"layers\.(pred_logits|pred_boxes|pred_boxes_xyxy)(_o2m)?|layers\.(presence_logit_dec|pred_masks_o2m)",
    r"processor\.CASE\.\d+\.(kept_queries|scores|boxes_xyxy_pixels|masks)",
    r"postprocess_all\.CASE\.(scores|boxes_xyxy_pixels|labels)",
)


def test_nothing_recorded_is_left_out(forward: dict[str, Tensor]) -> None:
    """A new kind of tensor in the folder must get a test."""
    pattern = re.compile("|".join(KNOWN).replace("CASE", f"({'|'.join(CASES)})"))
    assert [name for name in forward if not pattern.fullmatch(name)] == []


@pytest.mark.parametrize("case", CASES)
def test_token_ids_of_the_prompts(golden: Path, forward: dict[str, Tensor], case: str) -> None:
    from training.sam3.tokenizer import PromptTokenizer

    texts = values.record("forward")["cases"][case]["texts"]
    assert torch.equal(PromptTokenizer.from_installed()(texts), forward[f"{case}.token_ids"])
