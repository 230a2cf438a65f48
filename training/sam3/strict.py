"""A checkpoint's keys held against a model: layout, prefix, what is left aside and why, and all that does not fit."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor
from transformers.models.sam3.configuration_sam3 import Sam3Config

from infra.errors import DataError
from training.sam3.layout import rotary_tables, to_official, to_transformers
from training.sam3.model import PromptableSam3
from training.sam3.reading import Read
from training.sam3.shapes import EPSILON, ROTARY, config_of_shapes

Layout = Literal["official", "transformers"]

# one tensor of each part of the model: what stands before these names in a file is its prefix
_ANCHORS: dict[Layout, tuple[str, ...]] = {
    "official": (
        "backbone.vision_backbone.trunk.pos_embed",
        "backbone.language_backbone.encoder.positional_embedding",
        "transformer.decoder.query_embed.weight",
    ),
    "transformers": (
        "vision_encoder.backbone.embeddings.position_embeddings",
        "text_encoder.text_model.embeddings.position_embedding.weight",
        "detr_decoder.query_embed.weight",
    ),
}
_TRACKER = "the video tracker's: not part of the image model"
_ASIDE_WITHIN: dict[Layout, dict[str, str]] = {
    "official": {
        "backbone.vision_backbone.sam2_convs.": _TRACKER,
        "inst_interactive_predictor.": _TRACKER,
        **dict.fromkeys(
            (f"geometry_encoder.points_{part}_project." for part in ("direct", "pool", "pos_enc")),
            "point prompts: transformers' image model has no place for them",
        ),
    },
    "transformers": {},
}
_ASIDE_OUTSIDE: dict[Layout, tuple[str, ...]] = {
    "official": ("tracker.",),
    "transformers": ("tracker_model.", "tracker_neck."),
}
_COMPUTED = "rotary tables: computed from the sizes, and checked against them"


@dataclass
class LoadReport:
    """What was loaded, and what was left aside and why."""

    source: str
    form: str
    layout: Layout
    prefix: str
    used: int = 0  # tensors of the file
    parameters: int = 0
    dtypes: dict[str, int] = field(default_factory=dict)
    bytes: int = 0
    sha256: str = ""  # empty where the caller did not ask for it
    aside: dict[str, int] = field(default_factory=dict)  # reason: number of tensors
    notes: list[str] = field(default_factory=list)

    def record(self) -> dict[str, Any]:
        """As plain values, without the path, which says nothing on another machine."""
        return {**asdict(self), "source": Path(self.source).name}

    def __str__(self) -> str:
        """A few lines for a person."""
        kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(self.dtypes.items()))
        lines = [
            f"{self.source}: {self.layout} layout, prefix {self.prefix!r}, {self.form}, {self.bytes:,} bytes",
            f"  loaded      {self.used} tensors ({kinds}), {self.parameters:,} parameters",
            *(f"  left aside  {count}: {reason}" for reason, count in sorted(self.aside.items())),
            *(f"  note        {note}" for note in self.notes),
        ]
        return "\n".join([*lines, f"  sha256      {self.sha256}"] if self.sha256 else lines)


def detect_layout(names: Iterable[str], file: str) -> tuple[Layout, str]:
    """Layout and prefix of a checkpoint, told by its keys alone."""
    names = list(names)
    votes: Counter[tuple[Layout, str]] = Counter()
    for layout, anchors in _ANCHORS.items():
        for anchor in anchors:
            votes.update((layout, name.removesuffix(anchor)) for name in names if _ends(name, anchor))
    best = votes.most_common(2)
    if not best:
        listed = ", ".join(sorted(names)[:8]) or "nothing"
        msg = f"{file}: expected the weights of a SAM3 image model (official or transformers names), found {listed}, …"
        raise DataError(msg)
    if len(best) == 2 and best[0][1] == best[1][1]:
        found = " and ".join(f"{layout} names after {prefix!r}" for (layout, prefix), _ in best)
        msg = f"{file}: expected one model, found {found}. Keep one of them"
        raise DataError(msg)
    return best[0][0]


def _ends(name: str, anchor: str) -> bool:
    return name == anchor or name.endswith(f".{anchor}")


@dataclass
class Found:
    """Tensors of a checkpoint: the model's without prefix, its rotary tables, and names that belong nowhere."""

    model: dict[str, Tensor]
    rotary: dict[str, Tensor]
    strays: list[str]
    report: LoadReport


def sort_out(read: Read, source: str | Path) -> Found:
    """Detect layout and prefix, and part the image model's tensors from all others."""
    layout, prefix = detect_layout(read.tensors, Path(source).name)
    report = LoadReport(str(source), read.form, layout, prefix)
    model: dict[str, Tensor] = {}
    rotary: dict[str, Tensor] = {}
    strays: list[str] = []
    parent = report.prefix.rpartition("detector")[0]
    outside = tuple(parent + start for start in _ASIDE_OUTSIDE[report.layout])
    aside: Counter[str] = Counter()
    for name, value in read.tensors.items():
        inner = name.removeprefix(report.prefix)
        reasons = [why for start, why in _ASIDE_WITHIN[report.layout].items() if inner.startswith(start)]
        if name.startswith(outside):
            aside[_TRACKER] += 1
        elif not name.startswith(report.prefix):
            strays.append(name)
        elif ROTARY.fullmatch(inner):
            rotary[inner] = value
            aside[_COMPUTED] += 1
        elif reasons:
            aside[reasons[0]] += 1
        else:
            model[inner] = value
    for section, count in read.beside.items():
        aside[f"{section}: training state, not weights"] += count
    report.aside = dict(aside)
    return Found(model, rotary, strays, report)


def fitted(config: Sam3Config, found: Found) -> dict[str, Tensor]:
    """The state in transformers' names; DataError with all that does not fit, in the file's own names."""
    report = found.report
    file = Path(report.source).name
    with torch.device("meta"):
        expected = dict(PromptableSam3(config).state_dict())
    report.parameters = sum(value.numel() for value in expected.values())
    if report.layout == "official":
        expected = to_official(expected)
    _demand_equal_keys(expected, found, report, file)
    _check_rotary(config, found.rotary, report, file)
    report.used = len(found.model)
    report.dtypes = dict(Counter(str(value.dtype).removeprefix("torch.") for value in found.model.values()))
    epsilon = config.vision_config.backbone_config.layer_norm_eps
    if epsilon != EPSILON:
        report.notes.append(
            f"layer_norm_eps of the ViT is {epsilon:g} in the config; the official model computes with {EPSILON:g}"
        )
    return to_transformers(found.model) if report.layout == "official" else found.model


def _demand_equal_keys(expected: Mapping[str, Tensor], found: Found, report: LoadReport, file: str) -> None:
    missing = sorted(report.prefix + name for name in expected.keys() - found.model.keys())
    unexpected = sorted([*found.strays, *(report.prefix + name for name in found.model.keys() - expected.keys())])
    shapes, kinds = [], []
    for name in sorted(expected.keys() & found.model.keys()):
        value = found.model[name]
        if value.shape != expected[name].shape:
            wanted = tuple(expected[name].shape)
            shapes.append(f"{report.prefix}{name}: expected {wanted}, found {tuple(value.shape)}")
        elif not value.is_floating_point() or value.layout != torch.strided:
            kinds.append(f"{report.prefix}{name}: expected dense floats, found {value.dtype} {value.layout}")
    if missing or unexpected or shapes or kinds:
        parts = f"missing {missing}, unexpected {unexpected}, wrong shape {shapes}, wrong kind {kinds}"
        msg = f"{file} does not fit its config ({report.layout} layout): {parts}"
        raise DataError(msg)


def _check_rotary(config: Sam3Config, found: Mapping[str, Tensor], report: LoadReport, file: str) -> None:
    """Weights of any window and any number of heads have equal shapes: only the tables tell a wrong config."""
    if not found:
        return
    expected = rotary_tables(**rotary_sizes(config))
    globally = set(config.vision_config.backbone_config.global_attn_indexes)
    wrong, resized = [], False
    for name, table in expected.items():
        match = ROTARY.fullmatch(name)
        held = found.get(name)
        if match is None or held is None:
            continue
        if held.shape[1:] == table.shape[1:] and held.shape != table.shape and int(match.group(1)) in globally:
            resized = True  # another image size: another grid, and angles scaled to it
        elif held.shape != table.shape or not torch.allclose(held.to(table.dtype), table, atol=1e-3):
            wrong.append(name)
    if wrong:
        msg = (
            f"{file}: expected the rotary tables of its config.json, found others in {', '.join(wrong)}: "
            "window_size, num_attention_heads, global_attn_indexes or rope_theta is not the checkpoint's"
        )
        raise DataError(msg)
    if resized:
        size = config.vision_config.backbone_config.image_size
        report.notes.append(f"made for another image size, used at {size} pixels: rotary angles follow the new grid")


def rotary_sizes(config: Sam3Config) -> dict[str, Any]:
    """Arguments of `rotary_tables` for a config."""
    vit = config.vision_config.backbone_config
    return {
        "blocks": vit.num_hidden_layers,
        "global_blocks": vit.global_attn_indexes,
        "head_width": vit.hidden_size // vit.num_attention_heads,
        "window": vit.window_size,
        "grid": vit.image_size // vit.patch_size,
        "theta": vit.rope_parameters["rope_theta"],
    }


def config_of(found: Found) -> dict[str, Any]:
    """Sam3Config arguments that the shapes tell, in either layout."""
    file = Path(found.report.source).name
    if found.report.layout == "official":
        return config_of_shapes({**found.model, **found.rotary}, file)
    try:
        return config_of_shapes(to_official(found.model), file)
    except KeyError as error:
        msg = f"{file}: expected a config.json beside it, or nothing but a SAM3's tensors, found {error}"
        raise DataError(msg) from error
