"""Matchers, losses and gradients against what the official SAM3 code computes."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tests.training import golden as values
from training.sam3 import terms
from training.sam3.boxes import cxcywh_to_xyxy, iou_and_giou
from training.sam3.losses import Counts, LossWeights, Targets, criterion
from training.sam3.matcher import match, match_many
from training.sam3.model import OneToMany, Predictions

RELATIVE, ABSOLUTE = 1e-5, 1e-7
GRADIENT_RELATIVE, GRADIENT_ABSOLUTE = 1e-4, 1e-6
PRESENCE_LOGIT = "presence_logit"  # of the segmentation head: our model, as transformers', has none


class Case:
    """One case of the file, with predictions that gradients can be asked of."""

    def __init__(self, name: str) -> None:
        self.name = name
        everything = values.tensors("losses")
        start = f"{name}.pred."
        self.predictions = {
            key.removeprefix(start): value.clone().requires_grad_()
            for key, value in everything.items()
            if key.startswith(start)
        }
        self.counts = everything[f"{name}.target.num_boxes"]
        self.boxes = everything[f"{name}.target.boxes"]
        self.prompt = torch.repeat_interleave(torch.arange(len(self.counts)), self.counts)
        self.has_object = self.counts > 0
        masks = everything.get(f"{name}.target.masks")
        self.masks = None if masks is None else masks.float()
        self.valid = everything.get(f"{name}.target.is_valid_mask")
        self.exhaustive = everything.get(f"{name}.target.is_exhaustive")
        self.recorded = values.record("losses")["cases"][name]
        self.normaliser = float(self.recorded.get("normaliser_num_boxes", 1.0))

    @property
    def layers(self) -> list[str]:
        """Prefixes of the decoder layers, first to last."""
        earlier = sorted({key.split(".")[0] + "." for key in self.predictions if key.startswith("aux")})
        return [*earlier, ""]

    def matched(self, matcher: Callable[..., Any], prefix: str, half: str = "") -> tuple[Tensor, Tensor, Tensor]:
        logits = self.predictions[f"{prefix}pred_logits{half}"].detach().squeeze(-1)
        found: tuple[Tensor, Tensor, Tensor] = matcher(
            logits, self.predictions[f"{prefix}pred_boxes{half}"].detach(), self.boxes, self.prompt
        )
        return found

    def semantic_target(self, size: tuple[int, ...] | None = None) -> Tensor:
        """Union of each prompt's masks, downsampled first where a size is given."""
        assert self.masks is not None
        masks = self.masks
        if size is not None and len(masks):
            smaller = F.interpolate(masks.unsqueeze(1), size, mode="bilinear", align_corners=False).squeeze(1)
            masks = (smaller > 0).float()
        empty = torch.zeros(size or masks.shape[-2:])
        return torch.stack(
            [masks[self.prompt == number].amax(0) if count else empty for number, count in enumerate(self.counts)]
        )


@pytest.fixture
def case(golden: Path, request: pytest.FixtureRequest) -> Case:
    return Case(request.param)


def _match_keys() -> list[tuple[str, str]]:
    if values.folder() is None:
        return [("no folder", "")]
    names = (key.removesuffix(".src") for key in values.tensors("losses") if ".match." in key and key.endswith(".src"))
    return [(name.split(".match.")[0], name.split(".match.")[1]) for name in sorted(names)]


@pytest.mark.parametrize(("case", "which"), _match_keys(), indirect=["case"])
def test_both_matchers_give_the_official_assignment(case: Case, which: str) -> None:
    prefix, _, kind = which.rpartition(".")
    prefix = f"{prefix}." if prefix else ""
    matcher = match if kind.endswith("hungarian") else match_many
    found = case.matched(matcher, prefix, "" if kind.startswith("o2o") else "_o2m")
    key = f"{case.name}.match.{which}"
    everything = values.tensors("losses")
    source = everything[f"{key}.src"]
    wanted = everything.get(f"{key}.tgt", torch.arange(len(source)))
    assert set(zip(*(part.tolist() for part in found), strict=True)) == set(
        zip(everything[f"{key}.batch"].tolist(), source.tolist(), wanted.tolist(), strict=True)
    )


def _boxes(case: Case, prefix: str) -> Iterator[tuple[str, Tensor]]:
    predicted = case.predictions[f"{prefix}pred_boxes"]
    prompt, query, which = case.matched(match, prefix)
    yield from zip(
        ("loss_bbox", "loss_giou"),
        terms.box_losses(predicted[prompt, query], case.boxes[which], case.normaliser),
        strict=True,
    )


def _classification(case: Case, prefix: str, variant: str) -> Iterator[tuple[str, Tensor]]:
    logits = case.predictions[f"{prefix}pred_logits"].squeeze(-1)
    prompt, query, which = case.matched(match, prefix)
    predicted = case.predictions[f"{prefix}pred_boxes"].detach()
    iou, _ = iou_and_giou(cxcywh_to_xyxy(predicted[prompt, query]), cxcywh_to_xyxy(case.boxes[which]))
    options = values.record("losses")["settings"]["iabce_variants"].get(variant, {})
    yield (
        "loss_ce",
        terms.classification_loss(
            logits,
            (prompt, query),
            iou,
            trained=case.has_object if options.get("use_presence", True) else None,
            exhaustive=case.exhaustive if options.get("weak_loss") else None,
            padded_queries=options.get("pad_n_queries") or 0,
            positive_focal=bool(options.get("pos_focal")),
        ),
    )
    if options.get("use_presence", True):
        presence = case.predictions[f"{prefix}presence_logit_dec"].squeeze(-1)
        yield "presence_loss", terms.presence_loss(presence, case.has_object)
    else:
        yield "presence_loss", torch.zeros(())


def _masks(case: Case) -> Iterator[tuple[str, Tensor]]:
    prompt, query, which = case.matched(match, "")
    assert case.masks is not None
    assert case.valid is not None
    found = terms.mask_losses(
        case.predictions["pred_masks"][prompt, query], case.masks[which], case.normaliser, case.valid[which]
    )
    yield from zip(("loss_mask", "loss_dice"), found, strict=True)


def _semantic(case: Case, variant: str) -> Iterator[tuple[str, Tensor]]:
    options = values.record("losses")["settings"]["semantic_variants"][variant]
    logits = case.predictions["semantic_seg"].squeeze(1)
    target = case.semantic_target(tuple(logits.shape[-2:]) if options["downsample"] else None)
    there = target.flatten(1).any(1)
    found = terms.semantic_losses(logits, target, there if options["presence_head"] else None)
    yield from zip(("loss_semantic_seg", "loss_semantic_dice"), found, strict=True)
    if options["presence_head"]:
        on = options.get("presence_loss")
        presence = case.predictions[PRESENCE_LOGIT].squeeze(-1)
        # twice our term: officially a plain binary cross-entropy here, and a halved one in the decoder's
        yield "loss_semantic_presence", 2 * terms.presence_loss(presence, there) if on else torch.zeros(())


def _ours(case: Case, loss: str) -> dict[str, Tensor]:
    layer, _, kind = loss.rpartition(".")
    prefix = f"{layer}." if layer else ""
    if kind == "boxes":
        return dict(_boxes(case, prefix))
    if kind.startswith("iabce"):
        return dict(_classification(case, prefix, kind))
    if kind == "masks":
        return dict(_masks(case))
    if kind.startswith("semantic"):
        return dict(_semantic(case, kind))
    pytest.fail(f"{loss}: a loss that nothing here computes")


MEASURES = ("_f1", "_acc", "miou_")
"""Figures for the official log (F1, accuracy, mean IoU), which nothing is trained on."""


def _losses(*, wrapped: bool = False) -> list[tuple[str, str]]:
    if values.folder() is None:
        return [("no folder", "")]
    recorded = values.record("losses")["cases"]
    return [
        (name, loss)
        for name in recorded
        for loss in recorded[name].get("losses", {})
        if loss.startswith("wrapper") == wrapped
    ]


@pytest.mark.parametrize(("case", "loss"), _losses(), indirect=["case"])
def test_losses_and_their_gradients_are_the_official_ones(case: Case, loss: str) -> None:
    found = _ours(case, loss)
    recorded = case.recorded["losses"][loss]["unweighted"]
    wanted = {name: value for name, value in recorded.items() if not any(part in name for part in MEASURES)}
    assert found.keys() == wanted.keys()
    for name, value in wanted.items():
        assert float(found[name].detach()) == pytest.approx(value, rel=RELATIVE, abs=ABSOLUTE), name
    _compare_gradients(case, loss, found)


def _compare_gradients(case: Case, loss: str, found: dict[str, Tensor]) -> None:
    for key, gradient in values.tensors("losses").items():
        for name, value in found.items():
            start = f"{case.name}.grad.{loss}.{name}."
            if not key.startswith(start):
                continue
            prediction = case.predictions[key.removeprefix(start)]
            (ours,) = torch.autograd.grad(value, prediction, retain_graph=True, allow_unused=True)
            ours = torch.zeros_like(prediction) if ours is None else ours
            torch.testing.assert_close(
                ours,
                gradient,
                rtol=GRADIENT_RELATIVE,
                atol=GRADIENT_ABSOLUTE,
                msg=lambda text, key=key: f"{key}: {text}",
            )


def _stacked(case: Case, name: str) -> Tensor:
    return torch.stack([case.predictions[f"{prefix}{name}"] for prefix in case.layers])


def _criterion(case: Case, wrapper: str) -> tuple[Tensor, dict[str, Tensor]]:
    """Our whole criterion with the settings of one official wrapper."""
    options = values.record("losses")["settings"]["wrapper"]
    own = options[wrapper]
    with_many = own.get("o2m") != "absent"
    many = None
    if with_many:
        many = OneToMany(
            _stacked(case, "pred_logits_o2m").squeeze(-1),
            _stacked(case, "pred_boxes_o2m"),
            case.predictions["pred_masks_o2m"],
        )
    predictions = Predictions(
        logits=_stacked(case, "pred_logits").squeeze(-1),
        boxes_cxcywh=_stacked(case, "pred_boxes"),
        presence=_stacked(case, "presence_logit_dec").squeeze(-1),
        masks=case.predictions["pred_masks"],
        semantic=case.predictions["semantic_seg"].squeeze(1),
        one_to_many=many,
    )
    assert case.masks is not None
    targets = Targets(case.boxes, case.prompt, case.masks, case.semantic_target(), case.valid)
    weights = LossWeights(
        one_to_many=options["o2m_weight"] if with_many else 0.0,
        padded_queries=own["pad_n_queries"] or 0,
        scale_by_prompts=0.5 if own["scale_by_find_batch_size"] else 0.0,
    )
    counts = replace(Counts.of(targets), objects=torch.tensor(case.normaliser))
    return criterion(predictions, targets, weights, counts)


OUR_NAMES = {
    "loss_bbox": "boxes_l1",
    "loss_giou": "boxes_giou",
    "loss_ce": "classification",
    "loss_mask": "masks_focal",
    "loss_dice": "masks_dice",
}


@pytest.mark.parametrize(("case", "wrapper"), _losses(wrapped=True), indirect=["case"])
def test_the_whole_criterion_is_the_official_one(case: Case, wrapper: str) -> None:
    """All layers, masks, semantic map and the one-to-many branch at its weight of 2, as one sum with its gradients."""
    recorded = case.recorded["losses"][wrapper]
    wanted = recorded["values"]
    total, found = _criterion(case, wrapper)
    with_many = "loss_ce_o2m" in wanted
    tied = case.recorded["o2m_loss_ce_depends_on_index_order"] and with_many
    many_weight = values.record("losses")["settings"]["wrapper"]["o2m_weight"]
    for official, ours in OUR_NAMES.items():
        assert float(found[ours]) == pytest.approx(wanted[official], rel=RELATIVE, abs=ABSOLUTE), official
        if f"{official}_o2m" not in wanted or (official == "loss_ce" and tied):
            continue
        # the official log holds the branch's terms times its weight
        ours_many = many_weight * float(found[f"{ours}_one_to_many"])
        assert ours_many == pytest.approx(wanted[f"{official}_o2m"], rel=RELATIVE, abs=ABSOLUTE), official
    if tied:
        return  # officially the last of several soft targets in one place wins: not for comparison
    if wrapper == "wrapper_recipe_no_o2m_masks":
        # our branch always has masks: their part is taken off
        default = LossWeights()
        part = (
            default.masks_focal * found["masks_focal_one_to_many"]
            + default.masks_dice * found["masks_dice_one_to_many"]
        )
        total = total - many_weight * part * recorded["batch_scale"]
    assert float(total.detach()) == pytest.approx(wanted["core_loss"], rel=RELATIVE, abs=ABSOLUTE)
    _compare_gradients(case, wrapper, {"core_loss": total})


def test_a_query_of_several_objects_has_the_target_of_the_one_it_fits_best() -> None:
    """Where the official code depends on the order of indices, ours does not."""
    logits = torch.zeros(1, 3)
    places = torch.tensor([0, 0]), torch.tensor([1, 1])
    for iou in (torch.tensor([0.9, 0.3]), torch.tensor([0.3, 0.9])):
        single = terms.classification_loss(logits, (places[0][:1], places[1][:1]), torch.tensor([0.9]))
        assert torch.equal(terms.classification_loss(logits, places, iou), single)


def test_nothing_recorded_is_left_out(golden: Path) -> None:
    """Every loss, gradient and matcher of the file belongs to one of the tests above."""
    everything = values.tensors("losses")
    settings = values.record("losses")["settings"]
    known = {"boxes", "masks", "iabce", *settings["iabce_variants"], *settings["semantic_variants"]}
    known |= {name for name in settings["wrapper"] if name.startswith("wrapper")}
    for case, recorded in values.record("losses")["cases"].items():
        assert {loss.rpartition(".")[2] for loss in recorded.get("losses", {})} <= known, case
        assert recorded.get("losses") or case == "overlap"
    kinds = {key.split(".")[1] for key in everything}
    assert kinds == {"pred", "target", "match", "grad"}
    gradients = {re.sub(r"^aux\d+\.", "", key.split(".grad.")[1]) for key in everything if ".grad." in key}
    assert {name.split(".")[0] for name in gradients} <= known
