"""The one-to-many branch, from the recipe's switch to the gradient."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from tests.training.small import small_config, small_model
from training.module import Sam3Training
from training.recipes import RECIPES, tiny
from training.sam3.losses import Counts, LossWeights, Targets, criterion
from training.sam3.matcher import match_many
from training.sam3.model import PADDING_LABEL
from training.stream import Batch


def _batch() -> Batch:
    torch.manual_seed(0)
    masks = torch.zeros(2, 28, 28)
    masks[0, 4:18, 4:14], masks[1, 10:24, 12:26] = 1, 1
    return Batch(
        pixel_values=torch.randn(1, 3, 56, 56),
        input_ids=torch.tensor([[298, 7, 299] + 29 * [0], [298, 9, 299] + 29 * [0]]),
        image_of_prompt=torch.tensor([0, 0]),
        text_of_prompt=torch.tensor([0, 1]),
        boxes_cxcywh=torch.zeros(2, 1, 4),
        box_labels=torch.full((2, 1), PADDING_LABEL),
        targets=Targets(
            boxes_cxcywh=torch.tensor([[0.32, 0.39, 0.36, 0.5], [0.68, 0.61, 0.5, 0.5]]),
            prompt=torch.tensor([0, 0]),
            masks=masks,
            semantic=torch.stack([masks.amax(0), torch.zeros(28, 28)]),
        ),
        sample_ids=["a"],
    )


def _step(**losses: float) -> tuple[Sam3Training, torch.Tensor]:
    recipe = replace(tiny(), sam3=small_config(), image_size=56, losses=losses)
    module = Sam3Training(recipe, small_model().train())
    loss = module.training_step(_batch(), 0)
    assert loss is not None
    loss.backward()
    return module, loss.detach()


def test_the_recipes_switch_adds_the_branch_and_nothing_else_changes() -> None:
    off, loss_off = _step()
    _, loss_one = _step(one_to_many=1.0)
    two, loss_two = _step(one_to_many=2.0)
    assert not any("one_to_many" in name for name in off.terms)
    added = {name for name in two.terms if name.endswith("_one_to_many")}
    assert added == {
        f"{name}_one_to_many" for name in ("boxes_l1", "boxes_giou", "classification", "masks_focal", "masks_dice")
    }
    # the one-to-one part is what it was, and the branch counts by its weight
    for name, value in off.terms.items():
        if name != "loss":
            assert two.terms[name] == pytest.approx(value, rel=1e-5)
    assert float(loss_two - loss_off) == pytest.approx(2 * float(loss_one - loss_off), rel=1e-4)
    assert float(loss_one) > float(loss_off)
    gradients = [module.model.detr_decoder.query_embed.weight.grad for module in (off, two)]
    assert gradients[0] is not None
    assert gradients[1] is not None
    assert not torch.allclose(gradients[0], gradients[1])


def test_the_branch_is_off_where_results_are_accepted() -> None:
    assert LossWeights(**tiny().losses).one_to_many == 0.0
    assert "tiny" in RECIPES


def test_the_loss_asks_for_predictions_of_the_second_set() -> None:
    module, _ = _step()
    batch = _batch()
    predictions = module.model.decode(
        module.model.encode_images(batch.pixel_values),
        module.model.encode_text(batch.input_ids),
        batch.image_of_prompt,
        batch.text_of_prompt,
    )
    assert predictions.one_to_many is None
    with pytest.raises(ValueError, match="one_to_many=True"):
        criterion(predictions, batch.targets, LossWeights(one_to_many=2.0), Counts.of(batch.targets))


def test_the_second_set_ignores_its_neighbours() -> None:
    """A query of the second set depends on itself alone; one of the first set on all of the first."""
    batch = _batch()

    def second_and_first(changed: bool) -> tuple[torch.Tensor, torch.Tensor]:
        model = small_model()
        if changed:
            with torch.no_grad():
                model.detr_decoder.query_embed.weight[0] += 1.0
        with torch.no_grad():
            found = model.decode(
                model.encode_images(batch.pixel_values),
                model.encode_text(batch.input_ids),
                batch.image_of_prompt,
                batch.text_of_prompt,
                one_to_many=True,
            )
        assert found.one_to_many is not None
        return found.one_to_many.logits[..., 1:], found.logits[..., 1:]

    (second, first), (second_after, first_after) = second_and_first(False), second_and_first(True)
    assert torch.equal(second, second_after)
    assert not torch.allclose(first, first_after, atol=1e-4)


def test_each_object_gets_its_best_queries_and_bad_ones_are_not_forced() -> None:
    target = torch.tensor([[0.5, 0.5, 0.4, 0.4], [0.1, 0.1, 0.1, 0.1]])
    near = target[0] + torch.tensor([[0.0], [0.01], [0.02], [0.03], [0.04], [0.05]]) * torch.tensor([1.0, 0, 0, 0])
    boxes = torch.cat([near, torch.tensor([[0.9, 0.9, 0.1, 0.1]] * 4)]).unsqueeze(0)
    prompt, query, which = match_many(torch.zeros(1, 10), boxes, target, torch.tensor([0, 0]))
    assert query.tolist() == [0, 1, 2, 3]  # of six good ones the best four
    assert which.tolist() == [0, 0, 0, 0]  # nothing is near the second object
    assert prompt.tolist() == [0, 0, 0, 0]
    nothing = match_many(torch.zeros(1, 10), boxes, target[:0], torch.zeros(0, dtype=torch.long))
    assert [len(part) for part in nothing] == [0, 0, 0]
