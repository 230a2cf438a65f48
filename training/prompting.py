"""What a sample is asked: which concepts, in which words, with which boxes.

A concept is asked as a negative only where the sample was searched for it and it is not there; one in neither
list is unknown and never a negative. All chance comes from the generator that is passed in.

Points are no prompt here: transformers' `Sam3GeometryEncoder` encodes boxes alone and has no weights for points.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from preprocessing import schema
from training.recipes import Recipe

SIDES = frozenset({"left", "right"})
_SMALLEST_BOX = 0.01  # of a jittered box's sides, as a share of the image


@dataclass
class Vocabulary:
    """Words and kinship of the concepts of several datasets, as their `concepts.json` say."""

    prompts: dict[str, list[str]]  # concept -> texts for images of any modality, the canonical one first
    parents: dict[str, str] = field(default_factory=dict)
    wording: dict[tuple[str, str], list[str]] = field(default_factory=dict)  # (dataset, concept) -> its modality's own
    sided: frozenset[str] = frozenset()  # datasets that have a concept with a side

    @classmethod
    def of(cls, data_root: Path, datasets: Iterable[str]) -> Vocabulary:
        """Read the datasets' concepts; of a concept of several, the first one's prompts count."""
        found = cls({})
        sided = set()
        for dataset in datasets:
            for concept, entry in schema.read_concepts(data_root / dataset).items():
                found.prompts.setdefault(concept, list(entry["prompts"]))
                if entry.get("parent"):
                    found.parents.setdefault(concept, entry["parent"])
                if entry.get("wording"):
                    found.wording[dataset, concept] = list(entry["wording"])
                if has_side(concept):
                    sided.add(dataset)
        found.sided = frozenset(sided)
        return found

    def texts(self, dataset: str, concept: str, *, of_modality: bool) -> list[str]:
        """All words for a concept in a dataset's images, the canonical one first."""
        words = self.prompts.get(concept) or [concept]
        return [*words, *self.wording.get((dataset, concept), [])] if of_modality else words

    def near(self, concept: str, present: Iterable[str]) -> bool:
        """Whether a concept is easily taken for one that is there: kin in the ontology, or one word apart."""
        return any(self._kin(concept, other) or _one_word_apart(concept, other) for other in present)

    def _kin(self, first: str, second: str) -> bool:
        parents = self.parents.get(first), self.parents.get(second)
        return second == parents[0] or first == parents[1] or (parents[0] is not None and parents[0] == parents[1])


def has_side(concept: str) -> bool:
    """Whether left and right mean something for a concept, so that its mirror image would be another one."""
    return not SIDES.isdisjoint(concept.lower().split())


def choose_concepts(
    present: Sequence[str], absent: Sequence[str], vocabulary: Vocabulary, recipe: Recipe, draw: np.random.Generator
) -> list[str]:
    """The concepts that one visit of a sample is asked for, those that are there first.

    Args:
        present: concepts that are there, sorted.
        absent: concepts that were searched for and are not there, sorted.
        vocabulary: says which negatives are hard.
        recipe: `prompts_per_image`, `negative_share`, `most_negatives`, `hard_negative_share`.
        draw: all chance.
    """
    asked = bool(absent) and recipe.negative_share > 0 and (not present or draw.random() < recipe.negative_share)
    # true negatives where there are some, so that "absent" is learned as well as "present"
    negatives = recipe.most_negatives if asked else 0
    chosen = [str(name) for name in draw.permutation(present)[: max(recipe.prompts_per_image - negatives, 0)]]
    wanted = negatives if present or not asked else recipe.prompts_per_image
    order = [str(name) for name in draw.permutation(absent)]
    if wanted and recipe.hard_negative_share and draw.random() < recipe.hard_negative_share:
        order.sort(key=lambda name: not vocabulary.near(name, present))  # stable: chance orders what is alike
    return chosen + order[:wanted]


def choose_word(dataset: str, concept: str, vocabulary: Vocabulary, recipe: Recipe, draw: np.random.Generator) -> str:
    """The canonical text of a concept, or one of its synonyms."""
    words = vocabulary.texts(dataset, concept, of_modality=recipe.modality_wording)
    if len(words) > 1 and draw.random() < recipe.synonym_share:
        return words[int(draw.integers(1, len(words)))]
    return words[0]


def jittered(boxes_cxcywh: Tensor, noise: Tensor) -> Tensor:
    """Boxes (boxes, 4), normalised, whose sides are moved by `noise` (boxes, 4) times their width and height.

    People draw boxes beside the truth. A side stays inside the image, and a box keeps a size.
    """
    extent = boxes_cxcywh[:, [2, 3, 2, 3]]
    half = torch.tensor([-0.5, -0.5, 0.5, 0.5])
    corners = (boxes_cxcywh[:, [0, 1, 0, 1]] + half * extent + noise * extent).clamp(0, 1)
    centre = (corners[:, :2] + corners[:, 2:]) / 2
    return torch.cat([centre, (corners[:, 2:] - corners[:, :2]).clamp(min=_SMALLEST_BOX)], dim=1)


def promptable(entries: Sequence[Mapping[str, Any]], recipe: Recipe) -> list[int]:
    """Indices of the samples that can be asked for something; without negatives, those where something is there."""
    return [
        index
        for index, entry in enumerate(entries)
        if entry["concepts"] or (entry["absent"] and recipe.negative_share > 0)
    ]


def _one_word_apart(first: str, second: str) -> bool:
    words, others = first.split(), second.split()
    return len(words) == len(others) > 1 and sum(a != b for a, b in zip(words, others, strict=True)) == 1
