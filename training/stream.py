"""Samples to training batches, without losing place.

Each sample's prompts and augmentation are drawn from a generator keyed by (seed, global position),
so a batch depends on the step alone: not on the worker that makes it, nor on what was read before.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import IterableDataset, get_worker_info

from infra.errors import DataError, UsageError
from training.augment import Knobs, augment
from training.decode import Pixels
from training.order import positions_of
from training.pipeline import in_order
from training.prompting import Vocabulary, choose_concepts, choose_word, has_side, jittered
from training.recipes import Recipe
from training.sam3.boxes import boxes_of_masks, xyxy_to_cxcywh
from training.sam3.losses import Targets
from training.sam3.model import PADDING_LABEL
from training.sam3.tokenizer import PromptTokenizer
from training.spec import LoaderSettings

MOST_PROMPT_BOXES = 3
STATE_VERSION = 1  # of `BatchStream.state_dict`; raise it when a position means another sample or augmentation
_MEANING = {
    "version": "version of the order",
    "data": "digest of the shards",
    "stream": "kind of stream",
    "seed": "seed",
    "quota": "digest of how datasets are mixed and shuffled",
}


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

    def pin_memory(self) -> Batch:
        """The same in page-locked memory, from which a GPU copies while it computes; `DataLoader` calls this."""
        pinned: Batch = _pinned(self)
        return pinned


@dataclass
class _Prompted:
    image: Tensor  # (3, size, size) 0..1
    texts: list[str]
    semantic: Tensor  # (prompts, size, size) 0..1
    instances: list[Tensor]  # per prompt (instances, mask size, mask size) 0..1
    boxed: list[bool]
    box_noise: Tensor  # (prompts, MOST_PROMPT_BOXES, 4)
    sample_id: str


class Sample(Protocol):
    """One sample, at the recipe's sizes."""

    sample_id: str
    dataset: str
    modality: str
    concepts: list[str]  # present, sorted
    absent: list[str]  # searched for and not there, sorted

    def image(self) -> Pixels:
        """(size, size, 1 or 3) uint8."""

    def concept(self, concept: str) -> tuple[Pixels, Pixels]:
        """Coverage 0..255 of the union (size, size) and of each instance (instances, mask size, mask size)."""


class Samples(Protocol):
    """Samples by global position: `PreparedSamples` or `ShardSamples`."""

    digest: str  # of the data

    def follow(self, recipe: Recipe) -> dict[str, Any]:
        """Take the recipe's order; return what decides it."""

    def at(self, position: int) -> Sample:
        """The sample at a position; called by several threads at a time where the stream has some."""


class BatchStream(IterableDataset[Batch]):
    """Endless batches of one rank, from `first_step` or from the place of a loaded state on.

    With `DataLoader` workers each makes every n-th batch, so that the loader's own turns give them in order;
    `batch_size=None` passes them through.
    """

    def __init__(
        self,
        samples: Samples,
        wording: Vocabulary,
        recipe: Recipe,
        tokenizer: PromptTokenizer,
        *,
        rank: int,
        world_size: int,
        first_step: int = 0,
        loader: LoaderSettings | None = None,
    ) -> None:
        """`wording` gives each concept's prompts and kin."""
        super().__init__()
        if world_size > recipe.global_batch:
            msg = (
                f"stream: expected at most global_batch {recipe.global_batch} workers, found {world_size}: some would "
                "have no sample. Lower train.workers or raise train.overrides.global_batch in params.yaml"
            )
            raise UsageError(msg)
        self._samples, self._wording, self._recipe, self._tokenizer = samples, wording, recipe, tokenizer
        self._rank, self._world_size, self._first_step = rank, world_size, first_step
        self._knobs = Knobs(**recipe.augment)
        self._loader = loader or LoaderSettings()
        self._identity = {**samples.follow(recipe), "data": samples.digest}

    def state_dict(self, step: int) -> dict[str, Any]:
        """Where a run is that has trained on `step` batches: a few hundred bytes, the same on every rank.

        The step is told and not counted here: batches that were made ready and not trained on do not count.
        """
        return {"version": STATE_VERSION, "position": step * self._recipe.global_batch, **self._identity}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from there, on any number of ranks and workers. DataError where the data or the order are others."""
        wanted = {"version": STATE_VERSION, **self._identity}
        for name, expected in wanted.items():
            if state.get(name) != expected:
                msg = (
                    f"this run cannot go on from its checkpoint: stream: {_MEANING[name]}: "
                    f"expected {state.get(name)} as in the checkpoint, found {expected}. "
                    "Bring back what was changed, or start a new run in another folder"
                )
                raise DataError(msg)
        step, rest = divmod(int(state["position"]), self._recipe.global_batch)
        if rest:
            msg = (
                f"this run cannot go on from its checkpoint: stream: expected a position that is a multiple of "
                f"global_batch {self._recipe.global_batch}, found {state['position']}. Use the batch of the checkpoint"
            )
            raise DataError(msg)
        self._first_step = step

    @property
    def first_step(self) -> int:
        """Step of the first batch."""
        return self._first_step

    def __iter__(self) -> Iterator[Batch]:
        worker = get_worker_info()
        number, count = (worker.id, worker.num_workers) if worker else (0, 1)
        recipe, settings = self._recipe, self._loader
        steps = (
            positions_of(step, recipe.global_batch, self._rank, self._world_size)
            for step in itertools.count(self._first_step + number, count)
        )
        return in_order(steps, self._sample, self._collate, threads=settings.threads, ahead=settings.ahead)

    def _sample(self, position: int) -> _Prompted:
        recipe = self._recipe
        sample = self._samples.at(position)
        draw = np.random.default_rng([recipe.seed, 3, position])
        present = sample.concepts
        chosen = choose_concepts(present, sample.absent, self._wording, recipe, draw)

        pixels = torch.from_numpy(np.array(sample.image())).permute(2, 0, 1).float() / 255
        image = pixels.expand(3, -1, -1)
        size, cells = recipe.image_size, recipe.mask_size
        maps, instances = [], []
        for concept in chosen:
            if concept in present:
                union, parts = sample.concept(concept)
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
                modality=sample.modality,
                sided=sample.dataset in self._wording.sided or any(has_side(concept) for concept in chosen),
                draw=draw,
            )
        texts = [choose_word(sample.dataset, concept, self._wording, recipe, draw) for concept in chosen]
        boxed = [bool(draw.random() < recipe.box_prompt_share) for _ in chosen]
        noise = torch.zeros(len(chosen), MOST_PROMPT_BOXES, 4)
        if recipe.box_jitter:
            noise = torch.from_numpy(draw.standard_normal(noise.shape)).float() * recipe.box_jitter
        return _Prompted(image, texts, semantic, instances, boxed, noise, sample.sample_id)

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


def _pinned(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.pin_memory()
    if is_dataclass(value) and not isinstance(value, type):
        return replace(value, **{each.name: _pinned(getattr(value, each.name)) for each in fields(value)})
    return value
