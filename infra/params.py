"""`params.yaml`, checked: an unknown key or a bad value is one message that names file, key, expected, found."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from infra.errors import UsageError
from infra.secrets import without_secrets

_CREDENTIALS = re.compile(r"://[^/]*@|[?&;][\w.-]*(key|secret|token|password|signature)[\w.-]*=", re.IGNORECASE)
Fraction = Annotated[float, Field(ge=0, le=1)]


class Section(BaseModel):
    """Base of all sections: a key that nobody reads is a mistake, so it is refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Harmonize(Section):
    """Rules of the harmonization that hold for every dataset."""

    orientation: Annotated[str, Field(pattern="^[LR][AP][SI]$")]
    min_object_area_px: Annotated[int, Field(ge=1)]
    image_codec: Literal["png", "htj2k", "zstd"] = "png"  # `preprocessing.schema.pixels.CODECS`; infra imports no box


class Shards(Section):
    """How rows are laid in files."""

    target_bytes: Annotated[int, Field(ge=1024)]


class Splits(Section):
    """The keyed hash that puts a group in train, val or test."""

    key: Annotated[str, Field(min_length=1)]
    val: Fraction
    test: Fraction

    @model_validator(mode="after")
    def _leaves_train(self) -> Splits:
        if self.val + self.test >= 1:
            msg = "val + test must be below 1, so that some groups are left to train on"
            raise ValueError(msg)
        return self


class Lora(Section):
    """Adapters in place of full fine-tuning (`training.lora_settings` says what goes together)."""

    rank: Annotated[int, Field(ge=0)] = 0  # 0: none
    alpha: Annotated[float, Field(ge=0)] = 0
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0
    rate: Annotated[float, Field(gt=0)] = 10
    parts: list[Literal["vision", "text", "geometry", "detr"]] = ["vision", "text", "detr"]
    full: list[Literal["heads", "neck", "geometry"]] = ["heads"]


class Train(Section):
    """What `training.launch.run_training` is told."""

    recipe: Annotated[str, Field(min_length=1)]
    seed: Annotated[int, Field(ge=0)]
    steps: Annotated[int, Field(ge=0)]
    workers: Annotated[int, Field(ge=1)]
    start: str
    datasets: list[str] = []  # empty: all of `datasets` whose cards do not keep them for evaluation
    licence: Literal["any", "commercial", "redistribution"] = "any"
    min_workers: Annotated[int, Field(ge=0)] = 0  # go on with so few when machines are lost; 0: as many as `workers`
    strategy: Literal["auto", "ddp", "fsdp2"] = "auto"
    checkpoint_minutes: Annotated[float, Field(ge=0)] = 0  # beside every so many steps; 0: steps alone
    storage: str = ""  # folder or fsspec URL for checkpoints; empty: the workspace's own
    data_root: str = ""  # fsspec URL of a copy of `data/` to read shards from; empty: the workspace's own
    sample_log: bool = False  # write which samples each step saw
    width: Annotated[int, Field(ge=0)] = 0  # channels of the vision encoder, for recipes of the official model
    image_size: Annotated[int, Field(ge=0)] = 0  # pixels, for the same
    overrides: dict[str, Any] = {}  # fields of the recipe; `training.overrides` checks them
    freeze: list[Literal["vision", "text"]] = []  # parts that are not trained
    lora: Lora = Lora()

    @field_validator("storage", "data_root")
    @classmethod
    def _no_credentials(cls, value: str) -> str:
        """This file is versioned, and MLflow shows it."""
        if _CREDENTIALS.search(value):
            msg = "an address without credentials in it: they come from the environment alone (AWS_ACCESS_KEY_ID, …)"
            raise ValueError(msg)
        return value

    @field_validator("data_root")
    @classmethod
    def _an_address(cls, value: str) -> str:
        if value and "://" not in value:
            msg = "an address such as s3://bucket/data, or nothing for the workspace's own data"
            raise ValueError(msg)
        return value

    @model_validator(mode="after")
    def _fewer_than_all(self) -> Train:
        if self.min_workers > self.workers:
            msg = f"min_workers of at most workers ({self.workers})"
            raise ValueError(msg)
        return self


class Evaluate(Section):
    """What `training.launch.run_evaluation` is told."""

    split: Literal["train", "val", "test"]
    max_samples_per_dataset: Annotated[int, Field(ge=0)]
    prompts: Annotated[list[Literal["text", "box", "synonym"]], Field(min_length=1)] = ["text", "box"]
    surface_tolerance_mm: Annotated[float, Field(ge=0)] = 2.0  # of the normalised surface distance

    @field_validator("prompts")
    @classmethod
    def _with_text(cls, value: list[str]) -> list[str]:
        if "text" not in value or len(set(value)) < len(value):
            msg = "text, which is the headline, and box and synonym once each at most"
            raise ValueError(msg)
        return value


class Loss(Section):
    """How much a candidate may lose against the champion, pair by pair (docs/registry.md)."""

    tolerance: Fraction  # blocked where the 95 % interval of candidate − champion lies wholly below −tolerance
    min_groups: Annotated[int, Field(ge=2)] = (
        5  # with fewer an interval says little: there the difference itself counts
    )
    few_groups_tolerance: Fraction = 0.2
    levels: list[Literal["dataset", "modality", "concept"]] = ["dataset", "modality", "concept"]


class Minimums(Section):
    """The least text Dice by name."""

    dataset: dict[str, Fraction] = {}
    modality: dict[str, Fraction] = {}
    concept: dict[str, Fraction] = {}


class Quality(Section):
    """What a dataset as a whole must hold before it is trained on (`pipelines.quality`)."""

    max_quarantined: Fraction = 0.9
    max_lost_samples: Fraction = 0.5


class Gate(Section):
    """The bar for `@champion`; the registry reads it (`registry.gate`). A rule that is not named is not asked."""

    min_dice_text: Fraction
    min_gain_over_start: Annotated[float, Field(ge=-1, le=1)]
    max_score_absent: Fraction
    max_loss_per_dataset: Fraction
    max_false_alarm_rate: Fraction | None = None
    no_significant_loss: Loss | None = None
    min_dice: Minimums | None = None
    leakage_clean: bool = True
    licence: Literal["any", "commercial", "redistribution"] = "any"
    # what the champion was measured for and no model is any more: "DATASET" or "DATASET/CONCEPT"
    gone: list[Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*(/\S.*)?$")]] = []
    approval: bool = False  # true: what passes waits for `segfoundry model promote --approve`

    def rules(self) -> dict[str, Any]:
        """The rules that are asked, as the registry takes them."""
        return self.model_dump(exclude_none=True)


class Params(Section):
    """The whole file."""

    datasets: Annotated[list[Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]], Field(min_length=1)]
    harmonize: Harmonize
    shards: Shards
    splits: Splits
    train: Train
    evaluate: Evaluate
    gate: Gate
    quality: Quality = Quality()

    @model_validator(mode="after")
    def _once_each(self) -> Params:
        twice = sorted({name for name in self.datasets if self.datasets.count(name) > 1})
        if twice:
            msg = f"a dataset is named once, found twice: {', '.join(twice)}"
            raise ValueError(msg)
        if others := sorted(set(self.train.datasets) - set(self.datasets)):
            msg = f"names of train.datasets out of `datasets`, where they are ingested; not there: {', '.join(others)}"
            raise ValueError(msg)
        return self

    def section(self, *names: str) -> dict[str, Any]:
        """The named sections as plain values, as the other folders take them."""
        return self.model_dump(include=set(names))


def load_params(path: Path) -> Params:
    """Read and check `path`; `UsageError` with file, key, expected and found where it is wrong."""
    if not path.is_file():
        msg = f"{path}: no such file; expected the params.yaml of a workspace"
        raise UsageError(msg)
    try:
        value = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        msg = f"{path}: not YAML: {' '.join(str(error).split())}"
        raise UsageError(msg) from error
    return check_params(value, str(path))


def check_params(value: Any, where: str) -> Params:
    """Check an already read value; `where` is the file to name in the message."""
    try:
        return Params.model_validate(value)
    except ValidationError as error:
        raise UsageError(_explain(error, where)) from error


def _explain(error: ValidationError, where: str) -> str:
    lines = []
    for item in error.errors():
        key = ".".join(str(part) for part in item["loc"]) or "(whole file)"
        found = "nothing" if item["type"] == "missing" else without_secrets(repr(item.get("input")))
        if item["type"] == "extra_forbidden":
            expected = "no such key"
        else:
            expected = item["msg"].removeprefix("Value error, ").removeprefix("Input should be ")
        lines.append(f"{where}: {key}: expected {expected}, found {found[:120]}")
    return "\n".join(lines)
