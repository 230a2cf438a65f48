"""The model, losses and matcher against what the official SAM3 code computes (data in SEGFOUNDRY_GOLDEN)."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from training.sam3 import losses as L
from training.sam3.boxes import cxcywh_to_xyxy, iou_and_giou
from training.sam3.matcher import match

RELATIVE, ABSOLUTE = 1e-5, 1e-7


@pytest.fixture(scope="module")
def golden() -> Path:
    named = os.environ.get("SEGFOUNDRY_GOLDEN")
    folder = Path(named) if named else Path(__file__).parents[3] / "shared" / "golden"
    if not folder.is_dir():
        pytest.skip("no golden values: set SEGFOUNDRY_GOLDEN to a folder of the official code's outputs")
    return folder


@pytest.fixture(scope="module")
def loss_values(golden: Path) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    return load_file(golden / "losses.safetensors"), json.loads((golden / "losses.json").read_text())


CASES = ("main", "same_size", "invalid_mask", "one_prompt", "empty", "crowded")


def _targets(tensors: dict[str, torch.Tensor], case: str) -> tuple[torch.Tensor, torch.Tensor]:
    counts = tensors[f"{case}.target.num_boxes"]
    return tensors[f"{case}.target.boxes"], torch.repeat_interleave(torch.arange(len(counts)), counts)


@pytest.mark.parametrize("case", [*CASES, "overlap"])
@pytest.mark.parametrize("layer", ["", "aux0.", "aux1."])
def test_matcher_gives_the_official_assignment(
    loss_values: tuple[dict[str, torch.Tensor], dict[str, Any]], case: str, layer: str
) -> None:
    tensors, _ = loss_values
    key = f"{case}.match.{layer}o2o_hungarian"
    if f"{key}.batch" not in tensors:
        pytest.skip(f"{key} is not recorded")
    boxes, prompt = _targets(tensors, case)
    found = match(
        tensors[f"{case}.pred.{layer}pred_logits"].squeeze(-1), tensors[f"{case}.pred.{layer}pred_boxes"], boxes, prompt
    )
    source = tensors[f"{key}.src"]
    wanted = tensors.get(f"{key}.tgt", torch.arange(len(source)))
    assert set(zip(*(part.tolist() for part in found), strict=True)) == set(
        zip(tensors[f"{key}.batch"].tolist(), source.tolist(), wanted.tolist(), strict=True)
    )


@pytest.mark.parametrize("case", CASES)
def test_losses_have_the_official_values(
    loss_values: tuple[dict[str, torch.Tensor], dict[str, Any]], case: str
) -> None:
    tensors, record = loss_values
    values = record["cases"][case]["losses"]
    boxes, prompt = _targets(tensors, case)
    normaliser = float(record["cases"][case]["normaliser_num_boxes"])
    has_object = tensors[f"{case}.target.num_boxes"] > 0
    for layer, prefix in (("", ""), ("aux0.", "aux0."), ("aux1.", "aux1.")):
        logits = tensors[f"{case}.pred.{layer}pred_logits"].squeeze(-1)
        predicted = tensors[f"{case}.pred.{layer}pred_boxes"]
        p, q, t = match(logits, predicted, boxes, prompt)
        l1, giou = L.box_losses(predicted[p, q], boxes[t], normaliser)
        iou, _ = iou_and_giou(cxcywh_to_xyxy(predicted[p, q]), cxcywh_to_xyxy(boxes[t]))
        ce, presence = L.classification_losses(
            logits, tensors[f"{case}.pred.{layer}presence_logit_dec"].squeeze(-1), (p, q), iou, has_object
        )
        for found, name, value in (
            (l1, f"{prefix}boxes", "loss_bbox"),
            (giou, f"{prefix}boxes", "loss_giou"),
            (ce, f"{prefix}iabce", "loss_ce"),
            (presence, f"{prefix}iabce", "presence_loss"),
        ):
            if name in values:
                assert float(found) == pytest.approx(values[name]["unweighted"][value], rel=RELATIVE, abs=ABSOLUTE), (
                    name,
                    value,
                )
    if case in ("main", "same_size"):
        p, q, t = match(
            tensors[f"{case}.pred.pred_logits"].squeeze(-1), tensors[f"{case}.pred.pred_boxes"], boxes, prompt
        )
        masks = tensors[f"{case}.target.masks"].float()
        focal, dice = L.mask_losses(tensors[f"{case}.pred.pred_masks"][p, q], masks[t], normaliser)
        assert float(focal) == pytest.approx(values["masks"]["unweighted"]["loss_mask"], rel=RELATIVE)
        assert float(dice) == pytest.approx(values["masks"]["unweighted"]["loss_dice"], rel=RELATIVE)
        semantic = torch.stack(
            [
                masks[prompt == i].amax(0) if (prompt == i).any() else torch.zeros_like(masks[0])
                for i in range(len(has_object))
            ]
        )
        focal, dice = L.semantic_losses(tensors[f"{case}.pred.semantic_seg"].squeeze(1), semantic, has_object)
        assert float(focal) == pytest.approx(values["semantic_recipe"]["unweighted"]["loss_semantic_seg"], rel=RELATIVE)
        assert float(dice) == pytest.approx(values["semantic_recipe"]["unweighted"]["loss_semantic_dice"], rel=RELATIVE)
