from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers.models.sam3.configuration_sam3 import Sam3Config

from infra.errors import DataError
from training.metrics import dice_iou
from training.recipes import tiny
from training.sam3.boxes import boxes_of_masks, cxcywh_to_xyxy
from training.sam3.checkpoint import load_weights, save_weights
from training.sam3.init import initialise
from training.sam3.model import GeometryEncoder, PromptableSam3
from training.sam3.roi_align import roi_align


@pytest.fixture(scope="module")
def model() -> PromptableSam3:
    model = PromptableSam3(Sam3Config(**tiny().sam3))
    initialise(model, 3)
    return model.eval()


def test_packed_prompts_equal_transformers_own_forward(model: PromptableSam3) -> None:
    """One image with three prompts, vision once: the same numbers as three whole forward calls."""
    torch.manual_seed(0)
    size = tiny().image_size
    pixels = torch.randn(1, 3, size, size)
    ids = torch.zeros(3, 32, dtype=torch.long)
    ids[:, :4] = torch.tensor([[49406, 320, 1929, 49407], [49406, 2368, 539, 49407], [49406, 77, 88, 49407]])
    with torch.no_grad():
        packed = model.decode(
            model.encode_images(pixels), model.encode_text(ids), torch.zeros(3, dtype=torch.long), torch.arange(3)
        )
        for number in range(3):
            alone = model(
                pixel_values=pixels,
                input_ids=ids[number : number + 1],
                attention_mask=(ids[number : number + 1] != 0).long(),
                input_boxes=torch.zeros(1, 1, 4),
                input_boxes_labels=torch.full((1, 1), -10),
            )
            torch.testing.assert_close(packed.logits[-1, number], alone.pred_logits[0], atol=1e-5, rtol=1e-5)
            torch.testing.assert_close(packed.masks[number], alone.pred_masks[0], atol=1e-4, rtol=1e-4)
            torch.testing.assert_close(packed.semantic[number], alone.semantic_seg[0, 0], atol=1e-5, rtol=1e-5)
            torch.testing.assert_close(
                cxcywh_to_xyxy(packed.boxes_cxcywh[-1, number]), alone.pred_boxes[0], atol=1e-6, rtol=1e-5
            )


def test_the_geometry_encoder_is_ours(model: PromptableSam3) -> None:
    assert isinstance(model.geometry_encoder, GeometryEncoder)


def test_roi_align_of_a_linear_ramp_is_its_value_at_the_bin_centres() -> None:
    # bilinear sampling of a plane is exact, so every bin must hold the plane at its centre
    rows, columns = torch.meshgrid(torch.arange(16.0), torch.arange(12.0), indexing="ij")
    plane = (3 * rows + 5 * columns)[None, None]
    box = torch.tensor([[[2.0, 3.0, 9.0, 13.5]]])
    pooled = roi_align(plane, box, 7)[0, 0, 0]
    y = 3.0 + (torch.arange(7) + 0.5) * (13.5 - 3.0) / 7
    x = 2.0 + (torch.arange(7) + 0.5) * (9.0 - 2.0) / 7
    torch.testing.assert_close(pooled, 3 * y[:, None] + 5 * x[None, :], atol=1e-4, rtol=1e-5)


def test_boxes_of_masks_are_tight() -> None:
    masks = torch.zeros(2, 10, 20)
    masks[0, 2:5, 4:15] = 1
    torch.testing.assert_close(boxes_of_masks(masks), torch.tensor([[0.2, 0.2, 0.75, 0.5], [0.0, 0.0, 0.0, 0.0]]))


def test_the_same_seed_gives_the_same_start() -> None:
    models = [PromptableSam3(Sam3Config(**tiny().sam3)) for _ in range(3)]
    for model, seed in zip(models, (1, 1, 2), strict=True):
        initialise(model, seed)
    first, second, third = (model.state_dict() for model in models)
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not torch.equal(first["text_projection.weight"], third["text_projection.weight"])


def test_weights_load_strictly(model: PromptableSam3, tmp_path: Path) -> None:
    state = model.state_dict()
    save_weights(tmp_path / "whole.safetensors", state)
    load_weights(model, tmp_path / "whole.safetensors")
    broken = {name: value for name, value in state.items() if name != "text_projection.bias"}
    broken["text_projection.weight"] = torch.zeros(2, 2)
    broken["stray"] = torch.zeros(1)
    save_weights(tmp_path / "broken.safetensors", broken)
    with pytest.raises(DataError, match=r"missing \['text_projection.bias'\], unexpected \['stray'\], wrong shape"):
        load_weights(model, tmp_path / "broken.safetensors")


def test_dice_by_hand() -> None:
    truth = np.zeros((4, 4), dtype=bool)
    truth[:2] = True
    half = np.zeros((4, 4), dtype=bool)
    half[0] = True
    assert dice_iou(truth, half) == (pytest.approx(2 / 3), pytest.approx(0.5))
    assert dice_iou(~truth & truth, ~truth & truth) == (1.0, 1.0)
    assert dice_iou(truth, truth & ~truth) == (0.0, 0.0)


def test_recipe_names_are_checked() -> None:
    from infra.errors import UsageError
    from training.recipes import resolve

    with pytest.raises(UsageError, match=r"train\.recipe: expected one of full, paper, small, tiny, found 'huge'"):
        resolve({"recipe": "huge"})
    assert resolve({"recipe": "tiny", "steps": 12}) == replace(tiny(), steps=12)
