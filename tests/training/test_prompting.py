"""What a sample is asked, each switch by its effect."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.training.made import write_dataset
from training.fit import open_samples, prepare
from training.prompting import Vocabulary, choose_concepts, choose_word, jittered
from training.recipes import Recipe, tiny
from training.sam3.model import PADDING_LABEL
from training.sam3.tokenizer import PromptTokenizer
from training.spec import FitSpec
from training.stream import Batch, BatchStream

ABDOMEN = Vocabulary(
    prompts={"liver": ["liver", "hepatic parenchyma"]},
    parents={"left kidney": "kidney", "right kidney": "kidney", "renal cyst": "kidney", "kidney tumor": "left kidney"},
    wording={("Abdomen", "liver"): ["liver on a portal venous CT"]},
)
ABSENT = ["aorta", "bladder", "colon", "esophagus", "left kidney", "stomach", "uterus"]


def _draws(present: list[str], absent: list[str], count: int = 400, **fields: Any) -> list[list[str]]:
    recipe = replace(tiny(), **fields)
    return [
        choose_concepts(present, absent, ABDOMEN, recipe, np.random.default_rng([recipe.seed, position]))
        for position in range(count)
    ]


def test_without_negatives_nothing_absent_is_ever_asked() -> None:
    drawn = _draws(["liver", "spleen"], ABSENT, negative_share=0.0)
    assert {name for chosen in drawn for name in chosen} == {"liver", "spleen"}
    assert _draws([], ABSENT, negative_share=0.0, count=5) == [[]] * 5


def test_negatives_come_as_often_as_the_share_says_and_only_from_what_was_searched_for() -> None:
    drawn = _draws(["liver", "spleen"], ABSENT, negative_share=0.7)
    negatives = [name for chosen in drawn for name in chosen if name not in ("liver", "spleen")]
    assert set(negatives) == set(ABSENT)
    assert len(negatives) / len(drawn) == pytest.approx(0.7, abs=0.07)
    several = _draws(["liver"], ABSENT, negative_share=1.0, most_negatives=2, prompts_per_image=4)
    assert all(len(set(chosen) & set(ABSENT)) == 2 for chosen in several)


def test_hard_negatives_are_near_to_what_is_there() -> None:
    """A left kidney beside a right one is the hardest question; chance alone takes one of the seven."""
    easy, hard = (
        Counter(
            name
            for chosen in _draws(["right kidney"], ABSENT, negative_share=1.0, hard_negative_share=share)
            for name in chosen
            if name in ABSENT
        )
        for share in (0.0, 0.8)
    )
    assert easy["left kidney"] / easy.total() == pytest.approx(1 / 7, abs=0.06)
    assert hard["left kidney"] / hard.total() == pytest.approx(0.8 + 0.2 / 7, abs=0.06)
    assert set(hard) == set(ABSENT)


@pytest.mark.parametrize(
    ("concept", "present", "near"),
    [
        ("left kidney", "right kidney", True),  # siblings
        ("renal cyst", "left kidney", True),
        ("kidney tumor", "left kidney", True),  # child of what is there
        ("left kidney", "kidney tumor", True),  # parent of it
        ("c2 vertebra", "c3 vertebra", True),  # one word apart
        ("aorta", "liver", False),  # no words in common; neither has a parent
        ("left kidney", "liver", False),
    ],
)
def test_what_is_near(concept: str, present: str, near: bool) -> None:
    assert ABDOMEN.near(concept, [present]) is near


def test_words_of_one_modality_are_used_with_its_dataset_alone() -> None:
    recipe = replace(tiny(), synonym_share=1.0, modality_wording=True)

    def words(dataset: str, recipe: Recipe) -> set[str]:
        return {choose_word(dataset, "liver", ABDOMEN, recipe, np.random.default_rng(seed)) for seed in range(60)}

    assert words("Abdomen", recipe) == {"hepatic parenchyma", "liver on a portal venous CT"}
    assert words("Other", recipe) == {"hepatic parenchyma"}
    assert words("Abdomen", replace(recipe, modality_wording=False)) == {"hepatic parenchyma"}
    assert words("Abdomen", replace(recipe, synonym_share=0.0)) == {"liver"}


def test_a_jittered_box_moves_by_its_own_size_and_stays_in_the_image() -> None:
    boxes = torch.tensor([[0.5, 0.5, 0.2, 0.1], [0.02, 0.98, 0.04, 0.04]]).repeat(2000, 1)
    moved = jittered(boxes, torch.randn(4000, 4, generator=torch.Generator().manual_seed(0)) * 0.1)
    low, high = moved[:, :2] - moved[:, 2:] / 2, moved[:, :2] + moved[:, 2:] / 2
    assert float(low.min()) > -0.011
    assert float(high.max()) < 1.011
    left = low[::2, 0] - 0.4
    assert float(left.std()) == pytest.approx(0.1 * 0.2, rel=0.1)
    assert float((low[::2, 1] - 0.45).std()) == pytest.approx(0.1 * 0.1, rel=0.1)
    torch.testing.assert_close(jittered(boxes, torch.zeros(4000, 4)), boxes)


@pytest.fixture(scope="module")
def spec(tmp_path_factory: pytest.TempPathFactory) -> FitSpec:
    root = tmp_path_factory.mktemp("data")
    write_dataset(root, "Alpha", 12)
    concepts = root / "Alpha" / "concepts.json"
    words = json.loads(concepts.read_text())
    words["bright disc"]["wording"] = ["bright disc under the microscope"]
    concepts.write_text(json.dumps(words))
    spec = FitSpec(replace(tiny(), global_batch=4), str(root), ["Alpha"], str(tmp_path_factory.mktemp("run")))
    prepare(spec, "train", 0, 1)
    return spec


def _batches(spec: FitSpec, count: int = 6, **fields: Any) -> list[Batch]:
    stream = BatchStream(
        open_samples(spec, "train"),
        Vocabulary.of(Path(spec.data_root), spec.datasets),
        replace(spec.recipe, **fields),
        PromptTokenizer.from_installed(),
        rank=0,
        world_size=1,
        first_step=0,
    )
    return list(islice(stream, count))


def test_the_stream_without_negatives_asks_only_for_what_is_there(spec: FitSpec) -> None:
    for batch in _batches(spec, negative_share=0.0):
        # every prompt has a map that is not empty, and every image a prompt
        assert float(batch.targets.semantic.flatten(1).amax(1).min()) > 0.5
        assert set(batch.image_of_prompt.tolist()) == set(range(len(batch.sample_ids)))


def test_box_prompts_are_a_switch_and_their_jitter_leaves_the_targets_alone(spec: FitSpec) -> None:
    none, exact, moved = (
        _batches(spec, box_prompt_share=share, box_jitter=jitter, augment={})
        for share, jitter in ((0.0, 0.0), (1.0, 0.0), (1.0, 0.1))
    )
    assert all(bool((batch.box_labels == PADDING_LABEL).all()) for batch in none)
    for plain, other in zip(exact, moved, strict=True):
        given = plain.box_labels == 1
        assert given.any()
        assert torch.equal(given, other.box_labels == 1)
        assert torch.equal(plain.targets.boxes_cxcywh, other.targets.boxes_cxcywh)
        apart = (plain.boxes_cxcywh[given] - other.boxes_cxcywh[given]).abs()
        assert 0 < float(apart.max()) < 0.3


def test_what_is_drawn_depends_on_seed_and_position_alone(spec: FitSpec) -> None:
    fields = {
        "box_jitter": 0.1,
        "hard_negative_share": 0.5,
        "modality_wording": True,
        "augment": {"elastic": 0.02, "noise": 0.1, "blur": 1.0, "low_resolution": 0.5, "gamma": 0.3},
    }
    first, again = _batches(spec, 4, **fields), _batches(spec, 4, **fields)
    for one, two in zip(first, again, strict=True):
        assert torch.equal(one.pixel_values, two.pixel_values)
        assert torch.equal(one.input_ids, two.input_ids)
        assert torch.equal(one.boxes_cxcywh, two.boxes_cxcywh)
    other = _batches(spec, 4, seed=8, **fields)
    assert not torch.equal(first[0].pixel_values, other[0].pixel_values)
