"""What is trained on while speed is measured: a dataset version, given or made up, through the real stream."""

from __future__ import annotations

import hashlib
import io
import json
import zlib
from collections.abc import Iterator
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from PIL import Image
from torch import Tensor

from infra.errors import UsageError
from preprocessing import schema
from preprocessing.schema import rle
from training.fit import open_samples, prepare, wording_of
from training.recipes import Recipe
from training.sam3.losses import Targets
from training.sam3.tokenizer import CONTEXT, PromptTokenizer
from training.spec import FitSpec
from training.stream import Batch, BatchStream

MADE_UP = "made-up"
_PICTURES = 32
_START, _END, _FIRST, _WORDS = 49406, 49407, 320, 48000


class PlainTokenizer:
    """Ids of the right form for words: where CLIP's vocabulary is not installed, speed can still be measured."""

    def __call__(self, prompts: list[str]) -> Tensor:
        """(prompts, 32) int64: start, an id a word, end, padding."""
        ids = torch.zeros(len(prompts), CONTEXT, dtype=torch.long)
        for row, prompt in enumerate(prompts):
            words = [_FIRST + zlib.crc32(word.encode()) % _WORDS for word in prompt.split()][: CONTEXT - 2]
            ids[row, : len(words) + 2] = torch.tensor([_START, *words, _END])
        return ids


def tokenizer() -> tuple[Any, str]:
    """The tokenizer and what it is: `clip`, or `plain` where what CLIP's needs is not installed."""
    try:
        return PromptTokenizer.from_installed(), "clip"
    except (FileNotFoundError, ImportError):
        return PlainTokenizer(), "plain"


def make_up(root: Path, size: int, concepts: int) -> None:
    """Write a dataset version of random pictures, each showing `concepts` concepts of one to three objects."""
    draw = np.random.default_rng(0)
    names = [f"structure {number}" for number in range(concepts)]
    rows = [_row(draw, number, size, names) for number in range(_PICTURES)]
    folder = root / MADE_UP
    folder.mkdir(parents=True)
    shard = folder / "shard-00000.parquet"
    pq.write_table(pa.Table.from_pylist(rows, schema=schema.SHARD_SCHEMA), shard)
    digest = hashlib.sha256(shard.read_bytes()).hexdigest()
    (folder / schema.CONCEPTS_FILE).write_text(json.dumps({name: {"prompts": [name]} for name in names}))
    record = {
        "dataset": MADE_UP,
        "modality": "made up",
        "manifest_digest": digest,
        "splits": {"train": _PICTURES, "val": 0, "test": 0},
        "shards": {shard.name: {"sha256": digest, "rows": _PICTURES}},
    }
    (folder / schema.DATASET_FILE).write_text(json.dumps(record))


def _row(draw: np.random.Generator, number: int, size: int, names: list[str]) -> dict[str, Any]:
    pixels = draw.integers(0, 256, (size, size, 3), dtype=np.uint8)
    objects: list[dict[str, Any]] = []
    for name in names:
        for instance in range(1, int(draw.integers(1, 4)) + 1):
            mask = np.zeros((size, size), dtype=bool)
            (top, left), (height, width) = draw.integers(0, size * 3 // 4, 2), draw.integers(size // 8, size // 4, 2)
            mask[top : top + height, left : left + width] = True
            objects.append(
                {
                    "concept": name,
                    "instance": instance,
                    "rle": rle.encode(mask),
                    "bbox_xyxy": list(rle.bbox_xyxy(mask)),
                    "area": int(mask.sum()),
                }
            )
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG", compress_level=1)
    key = f"{number:05d}"
    return {
        "sample_id": f"{MADE_UP}/{key}",
        "dataset": MADE_UP,
        "case_id": key,
        "group_id": key,
        "modality": "made up",
        "split": "train",
        "height": size,
        "width": size,
        "image": buffer.getvalue(),
        "image_format": "png",
        "objects": objects,
        "absent": [],
        "source": [],
        "content_sha256": key,
        "recipe_sha256": "",
    }


class Workload:
    """A dataset version ready to be streamed as often as wanted, each time the same."""

    def __init__(self, recipe: Recipe, data: Path, datasets: list[str], work: Path) -> None:
        """`data` holds the dataset versions `datasets`; prepared samples go to `work`."""
        self._recipe = recipe
        spec = FitSpec(recipe, str(data), datasets, str(work))
        prepare(spec, "train", 0, 1)
        self._samples = open_samples(spec, "train")
        if not len(self._samples):
            msg = f"bench: expected samples in the train split of {', '.join(datasets)}, found none"
            raise UsageError(msg)
        self._wording = wording_of(data, datasets)
        self._tokenizer, self.tokenizer_name = tokenizer()

    def batches(self) -> Iterator[Batch]:
        """Batches from the first step on."""
        return iter(
            BatchStream(
                self._samples,
                self._wording,
                self._recipe,
                self._tokenizer,
                rank=0,
                world_size=1,
                first_step=0,
            )
        )


def moved(value: Any, device: torch.device) -> Any:
    """A batch with all of its tensors on `device`."""
    if isinstance(value, Tensor):
        return value.to(device, non_blocking=True)
    if is_dataclass(value) and not isinstance(value, type):
        return replace(value, **{item.name: moved(getattr(value, item.name), device) for item in fields(value)})
    return value


def with_prompts(batch: Batch, chosen: Tensor) -> Batch:
    """The batch with some of its prompts alone, in the order of `chosen` (prompts,), and with the images of these."""
    images = batch.image_of_prompt[chosen]
    new_place = torch.full((len(batch.image_of_prompt),), -1, dtype=torch.long, device=chosen.device)
    new_place[chosen] = torch.arange(len(chosen), device=chosen.device)
    owners = new_place[batch.targets.prompt]
    kept = owners >= 0
    targets = Targets(
        boxes_cxcywh=batch.targets.boxes_cxcywh[kept],
        prompt=owners[kept],
        masks=batch.targets.masks[kept],
        semantic=batch.targets.semantic[chosen],
    )
    return Batch(
        pixel_values=batch.pixel_values[images],
        input_ids=batch.input_ids[batch.text_of_prompt[chosen]],
        image_of_prompt=torch.arange(len(chosen), device=chosen.device),
        text_of_prompt=torch.arange(len(chosen), device=chosen.device),
        boxes_cxcywh=batch.boxes_cxcywh[chosen],
        box_labels=batch.box_labels[chosen],
        targets=targets,
        sample_ids=[batch.sample_ids[int(image)] for image in images],
    )


def prompt_rounds(image_of_prompt: Tensor) -> list[Tensor]:
    """Prompts in rounds of at most one an image: what the plain way takes in one forward."""
    rounds: dict[int, list[int]] = {}
    seen: dict[int, int] = {}
    for prompt, image in enumerate(image_of_prompt.tolist()):
        number = seen.get(image, 0)
        seen[image] = number + 1
        rounds.setdefault(number, []).append(prompt)
    return [torch.tensor(prompts, device=image_of_prompt.device) for prompts in rounds.values()]
