"""Prepared samples to training batches, without losing place.

Each sample's prompts and augmentation are drawn from a generator keyed by (seed, global position),
so a batch depends on the step alone: not on the worker that makes it, nor on what was read before.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import IterableDataset

from infra.errors import DataError
from training.augment import Knobs, augment
from training.order import GlobalOrder, positions_of
from training.prepared import PreparedSamples
from training.prompting import Vocabulary, choose_concepts, choose_word, has_side, jittered, promptable
from training.recipes import Recipe
from training.sam3.boxes import boxes_of_masks, xyxy_to_cxcywh
from training.sam3.losses import Targets
from training.sam3.model import PADDING_LABEL
from training.sam3.tokenizer import PromptTokenizer

MOST_PROMPT_BOXES = 3


@dataclass
class Batch:
    """One step of one rank. Prompts are packed: `image_of_prompt` says whose they are."""

    pixel_values: Tensor  # (images, 3, size, size), -1..1
    input_ids: Tensor  # (distinct texts, 32)
    image_of_prompt: Tensor  # (prompts,)
    text_of_prompt: Tensor  # (prompts,)
    boxes_cxcywh: Tensor  # (prompts, boxes, 4), normalised
    box_labels: Tensor  # (prompts, boxes)
    targets: Targets
    sample_ids: list[str]


@dataclass
class _Prompted:
    image: Tensor  # (3, size, size) 0..1
    texts: list[str]
    semantic: Tensor  # (prompts, size, size) 0..1
    instances: list[Tensor]  # per prompt (instances, mask size, mask size) 0..1
    boxed: list[bool]
    box_noise: Tensor  # (prompts, MOST_PROMPT_BOXES, 4)
    sample_id: str


class BatchStream(IterableDataset[Batch]):
    """Endless batches of one rank from `first_step` on."""

    def __init__(
        self,
        samples: PreparedSamples,
        wording: Vocabulary,
        recipe: Recipe,
        tokenizer: PromptTokenizer,
        *,
        rank: int,
        world_size: int,
        first_step: int,
    ) -> None:
        """`wording` gives each concept's prompts and kin."""
        super().__init__()
        self._samples, self._wording, self._recipe, self._tokenizer = samples, wording, recipe, tokenizer
        self._rank, self._world_size, self._first_step = rank, world_size, first_step
        self._knobs = Knobs(**recipe.augment)
        self._usable = promptable([entry for entry, _, _ in samples.entries], recipe)
        if not self._usable:
            msg = "training: expected samples with a concept to ask for, found none in the train splits"
            raise DataError(msg)
        dataset_of = np.repeat(np.arange(len(samples.sizes)), samples.sizes)[self._usable]
        self._order = GlobalOrder(
            [int(size) for size in np.bincount(dataset_of) if size],
            recipe.temperature,
            recipe.seed,
            visits=recipe.most_visits,
            draws=recipe.steps * recipe.global_batch,
        )

    def __iter__(self) -> Iterator[Batch]:
        step = self._first_step
        while True:
            places = positions_of(step, self._recipe.global_batch, self._rank, self._world_size)
            yield self._collate([self._sample(position) for position in places])
            step += 1

    def _sample(self, position: int) -> _Prompted:
        recipe = self._recipe
        index = self._usable[self._order[position]]
        entry = self._samples.entries[index][0]
        draw = np.random.default_rng([recipe.seed, 3, position])
        present, absent = sorted(entry["concepts"]), sorted(entry["absent"])
        chosen = choose_concepts(present, absent, self._wording, recipe, draw)

        pixels = torch.from_numpy(np.array(self._samples.image(index))).permute(2, 0, 1).float() / 255
        image = pixels.expand(3, -1, -1)
        size, cells = recipe.image_size, recipe.mask_size
        maps, instances = [], []
        for concept in chosen:
            if concept in entry["concepts"]:
                union, parts = self._samples.concept(index, concept)
                maps.append(torch.from_numpy(np.array(union)).float() / 255)
                instances.append(torch.from_numpy(np.array(parts)).float() / 255)
            else:
                maps.append(torch.zeros(size, size))
                instances.append(torch.zeros(0, cells, cells))
        semantic = torch.stack(maps) if maps else torch.zeros(0, size, size)
        if recipe.augment:
            image, semantic, instances = augment(
                image,
                semantic,
                instances,
                self._knobs,
                modality=entry["modality"],
                sided=entry["dataset"] in self._wording.sided or any(has_side(concept) for concept in chosen),
                draw=draw,
            )
        texts = [choose_word(entry["dataset"], concept, self._wording, recipe, draw) for concept in chosen]
        boxed = [bool(draw.random() < recipe.box_prompt_share) for _ in chosen]
        noise = torch.zeros(len(chosen), MOST_PROMPT_BOXES, 4)
        if recipe.box_jitter:
            noise = torch.from_numpy(draw.standard_normal(noise.shape)).float() * recipe.box_jitter
        return _Prompted(image, texts, semantic, instances, boxed, noise, entry["sample_id"])

    def _collate(self, samples: list[_Prompted]) -> Batch:
        texts = sorted({text for sample in samples for text in sample.texts})
        place = {text: number for number, text in enumerate(texts)}
        image_of: list[int] = []
        text_of: list[int] = []
        owners: list[int] = []
        semantic: list[Tensor] = []
        masks: list[Tensor] = []
        boxes: list[Tensor] = []
        prompt_boxes: list[Tensor] = []
        prompt_labels: list[Tensor] = []
        for number, sample in enumerate(samples):
            for text, union, parts, boxed, noise in zip(
                sample.texts, sample.semantic, sample.instances, sample.boxed, sample.box_noise, strict=True
            ):
                prompt = len(image_of)
                image_of.append(number)
                text_of.append(place[text])
                semantic.append(union)
                visible = parts[parts.flatten(1).amax(1) > 0.5] if len(parts) else parts
                around = xyxy_to_cxcywh(boxes_of_masks(visible))
                masks.append(visible)
                boxes.append(around)
                owners.extend([prompt] * len(visible))
                given = torch.zeros(MOST_PROMPT_BOXES, 4)
                labels = torch.full((MOST_PROMPT_BOXES,), PADDING_LABEL)
                if boxed and len(visible):
                    shown = around[:MOST_PROMPT_BOXES]
                    given[: len(shown)] = jittered(shown, noise[: len(shown)]) if self._recipe.box_jitter else shown
                    labels[: len(shown)] = 1
                prompt_boxes.append(given)
                prompt_labels.append(labels)
        return Batch(
            pixel_values=(torch.stack([sample.image for sample in samples]) - 0.5) / 0.5,
            input_ids=self._tokenizer(texts),
            image_of_prompt=torch.tensor(image_of),
            text_of_prompt=torch.tensor(text_of),
            boxes_cxcywh=torch.stack(prompt_boxes),
            box_labels=torch.stack(prompt_labels),
            targets=Targets(
                boxes_cxcywh=torch.cat(boxes),
                prompt=torch.tensor(owners, dtype=torch.long),
                masks=torch.cat(masks),
                semantic=torch.stack(semantic),
            ),
            sample_ids=[sample.sample_id for sample in samples],
        )
