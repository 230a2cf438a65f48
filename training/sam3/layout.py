"""Names of SAM3's weights: the official layout and transformers', each a pure renaming of the other.

A rule is a pair of templates (`#` a layer's number, `@` weight or bias) and what happens to the values:
nothing, a fused projection cut in three, a transposition, or the class row of the position embedding
left out. `tests/training/test_golden.py` holds the whole against the official code's outputs.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

How = Literal["same", "split", "transpose", "class row"]


@dataclass(frozen=True)
class Rule:
    """One template pair; `split` has three names on transformers' side, everything else one."""

    official: str
    ours: tuple[str, ...]
    how: How = "same"


def _fused(official: str, ours: str) -> Rule:
    return Rule(official, tuple(f"{ours}.{part}_proj.@" for part in "qkv"), "split")


def _renamed(official: str, ours: str, pairs: Mapping[str, str]) -> Iterator[Rule]:
    for old, new in pairs.items():
        yield Rule(f"{official}.{old}", (f"{ours}.{new}",))


def _perceptron(official: str, ours: str, layers: int) -> Iterator[Rule]:
    for number in range(layers):
        yield Rule(f"{official}.layers.{number}.@", (f"{ours}.layer{number + 1}.@",))


def _attention(official: str, ours: str, out: str = "o_proj") -> Iterator[Rule]:
    yield _fused(f"{official}.in_proj_@", ours)
    yield Rule(f"{official}.out_proj.@", (f"{ours}.{out}.@",))


def _vision() -> Iterator[Rule]:
    trunk, backbone = "backbone.vision_backbone.trunk", "vision_encoder.backbone"
    yield Rule(f"{trunk}.pos_embed", (f"{backbone}.embeddings.position_embeddings",), "class row")
    yield Rule(f"{trunk}.patch_embed.proj.weight", (f"{backbone}.embeddings.patch_embeddings.projection.weight",))
    yield Rule(f"{trunk}.ln_pre.@", (f"{backbone}.layer_norm.@",))
    block, layer = f"{trunk}.blocks.#", f"{backbone}.layers.#"
    yield _fused(f"{block}.attn.qkv.@", f"{layer}.attention")
    same = {"attn.proj.@": "attention.o_proj.@", "mlp.fc1.@": "mlp.fc1.@", "mlp.fc2.@": "mlp.fc2.@"}
    yield from _renamed(block, layer, {**same, "norm1.@": "layer_norm1.@", "norm2.@": "layer_norm2.@"})
    levels = {
        "conv_1x1.@": "proj1.@",
        "conv_3x3.@": "proj2.@",
        "dconv_2x2_0.@": "scale_layers.0.@",
        "dconv_2x2_1.@": "scale_layers.2.@",
        "dconv_2x2.@": "scale_layers.0.@",
    }
    yield from _renamed("backbone.vision_backbone.convs.#", "vision_encoder.neck.fpn_layers.#", levels)


def _text() -> Iterator[Rule]:
    language, text = "backbone.language_backbone.encoder", "text_encoder.text_model"
    tables = {
        "token_embedding.weight": "embeddings.token_embedding.weight",
        "positional_embedding": "embeddings.position_embedding.weight",
        "ln_final.@": "final_layer_norm.@",
    }
    yield from _renamed(language, text, tables)
    yield Rule(f"{language}.text_projection", ("text_encoder.text_projection.weight",), "transpose")
    yield Rule("backbone.language_backbone.resizer.@", ("text_projection.@",))
    block, layer = f"{language}.transformer.resblocks.#", f"{text}.encoder.layers.#"
    yield from _attention(f"{block}.attn", f"{layer}.self_attn", "out_proj")
    inner = {"mlp.c_fc.@": "mlp.fc1.@", "mlp.c_proj.@": "mlp.fc2.@"}
    yield from _renamed(block, layer, {**inner, "ln_1.@": "layer_norm1.@", "ln_2.@": "layer_norm2.@"})


def _encoder_layer(official: str, ours: str) -> Iterator[Rule]:
    """A layer of the DETR encoder or of the geometry encoder: the same class officially."""
    yield from _attention(f"{official}.self_attn", f"{ours}.self_attn")
    yield from _attention(f"{official}.cross_attn_image", f"{ours}.cross_attn")
    norms = {f"norm{number}.@": f"layer_norm{number}.@" for number in (1, 2, 3)}
    yield from _renamed(official, ours, {"linear1.@": "mlp.fc1.@", "linear2.@": "mlp.fc2.@", **norms})


def _geometry() -> Iterator[Rule]:
    boxes = ("boxes_direct_project.@", "boxes_pool_project.@", "boxes_pos_enc_project.@")
    kept = ("label_embed.weight", "cls_embed.weight", "final_proj.@", *boxes)
    norms = {"img_pre_norm.@": "vision_layer_norm.@", "norm.@": "prompt_layer_norm.@"}
    norms["encode_norm.@"] = "output_layer_norm.@"
    yield from _renamed("geometry_encoder", "geometry_encoder", {**{name: name for name in kept}, **norms})
    yield from _encoder_layer("geometry_encoder.encode.#", "geometry_encoder.layers.#")


def _decoder() -> Iterator[Rule]:
    official, ours = "transformer.decoder", "detr_decoder"
    kept = ("query_embed.weight", "reference_points.weight", "presence_token.weight")
    norms = {"norm.@": "output_layer_norm.@", "presence_token_out_norm.@": "presence_layer_norm.@"}
    yield from _renamed(official, ours, {**{name: name for name in kept}, **norms})
    yield from _perceptron(f"{official}.bbox_embed", f"{ours}.box_head", 3)
    yield from _perceptron(f"{official}.presence_token_head", f"{ours}.presence_head", 3)
    yield from _perceptron(f"{official}.ref_point_head", f"{ours}.ref_point_head", 2)
    for axis in "xy":
        yield from _perceptron(f"{official}.boxRPB_embed_{axis}", f"{ours}.box_rpb_embed_{axis}", 2)
    block, layer = f"{official}.layers.#", f"{ours}.layers.#"
    for old, new in (("self_attn", "self_attn"), ("ca_text", "text_cross_attn"), ("cross_attn", "vision_cross_attn")):
        yield from _attention(f"{block}.{old}", f"{layer}.{new}")
    inner = {
        "linear1.@": "mlp.fc1.@",
        "linear2.@": "mlp.fc2.@",
        "catext_norm.@": "text_cross_attn_layer_norm.@",
        "norm1.@": "vision_cross_attn_layer_norm.@",
        "norm2.@": "self_attn_layer_norm.@",
        "norm3.@": "mlp_layer_norm.@",
    }
    yield from _renamed(block, layer, inner)


def _heads() -> Iterator[Rule]:
    head, ours = "segmentation_head", "mask_decoder"
    yield from _attention(f"{head}.cross_attend_prompt", f"{ours}.prompt_cross_attn")
    pairs = {
        "cross_attn_norm.@": "prompt_cross_attn_norm.@",
        "instance_seg_head.@": "instance_projection.@",
        "semantic_seg_head.@": "semantic_projection.@",
        "mask_predictor.mask_embed.layers.#.@": "mask_embedder.layers.#.@",
        "pixel_decoder.conv_layers.#.@": "pixel_decoder.conv_layers.#.@",
        "pixel_decoder.norms.#.@": "pixel_decoder.norms.#.@",
    }
    yield from _renamed(head, ours, pairs)
    scoring = {"hs_proj.@": "query_proj.@", "prompt_proj.@": "text_proj.@"}
    scoring["prompt_mlp.out_norm.@"] = "text_mlp_out_norm.@"
    yield from _renamed("dot_prod_scoring", "dot_product_scoring", scoring)
    yield from _perceptron("dot_prod_scoring.prompt_mlp", "dot_product_scoring.text_mlp", 2)


RULES: tuple[Rule, ...] = (
    *_vision(),
    *_text(),
    *_geometry(),
    *_encoder_layer("transformer.encoder.layers.#", "detr_encoder.layers.#"),
    *_decoder(),
    *_heads(),
)


def _pattern(template: str) -> re.Pattern[str]:
    escaped = re.escape(template).replace(r"\#", "#")
    return re.compile(escaped.replace("#", r"(?P<number>\d+)").replace("@", "(?P<part>weight|bias)"))


def _fill(template: str, match: re.Match[str]) -> str:
    found = match.groupdict()
    return template.replace("#", found.get("number") or "").replace("@", found.get("part") or "")


_FROM_OFFICIAL = tuple((_pattern(rule.official), rule) for rule in RULES)
_FROM_OURS = tuple((_pattern(rule.ours[0]), rule) for rule in RULES)
_LATER_PARTS = tuple(_pattern(name) for rule in RULES for name in rule.ours[1:])


def to_transformers(official: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Official names (no prefix) and values to transformers', as views; KeyError for a name that no rule knows."""
    result: dict[str, Tensor] = {}
    for name, value in official.items():
        match, rule = _rule_of(name, _FROM_OFFICIAL)
        names = [_fill(template, match) for template in rule.ours]
        if rule.how == "split":
            result.update(zip(names, value.chunk(3, dim=0), strict=True))
        elif rule.how == "transpose":
            result[names[0]] = value.t()
        elif rule.how == "class row":
            result[names[0]] = value[:, 1:]
        else:
            result[names[0]] = value
    return result


def to_official(ours: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """transformers' names and values to the official ones; KeyError for a name that no rule knows.

    The class row of the position embedding, which the official model stores and never reads, is zero.
    """
    result: dict[str, Tensor] = {}
    for name, value in ours.items():
        if any(pattern.fullmatch(name) for pattern in _LATER_PARTS):
            continue  # joins its fused projection below
        match, rule = _rule_of(name, _FROM_OURS)
        official = _fill(rule.official, match)
        if ".dconv_2x2_0." in official and name.replace("scale_layers.0", "scale_layers.2") not in ours:
            official = official.replace("dconv_2x2_0", "dconv_2x2")  # a level with a single upsampling
        if rule.how == "split":
            result[official] = torch.cat([ours[_fill(template, match)] for template in rule.ours], dim=0)
        elif rule.how == "transpose":
            result[official] = value.t()
        elif rule.how == "class row":
            result[official] = torch.cat([torch.zeros_like(value[:, :1]), value], dim=1)
        else:
            result[official] = value
    return result


def _rule_of(name: str, rules: Iterable[tuple[re.Pattern[str], Rule]]) -> tuple[re.Match[str], Rule]:
    for pattern, rule in rules:
        match = pattern.fullmatch(name)
        if match:
            return match, rule
    raise KeyError(name)


def rotary_tables(
    *, blocks: int, global_blocks: Iterable[int], head_width: int, window: int, grid: int, theta: float
) -> dict[str, Tensor]:
    """The official model's `freqs_cis` buffers, complex64 (positions, head width / 2), by official name.

    Axial rotary embedding (Heo et al., arXiv:2403.13298): half of the pairs turn with x, half with y. A global
    block's positions are scaled by window / grid, so that the angles stay in the range of a window's.
    """
    frequency = 1.0 / theta ** (torch.arange(0, head_width, 4)[: head_width // 4].float() / head_width)
    tables = {}
    globally = set(global_blocks)
    for block in range(blocks):
        extent, scale = (grid, window / grid) if block in globally else (window, 1.0)
        position = torch.arange(extent * extent, dtype=torch.float32)
        x, y = (position % extent) * scale, torch.div(position, extent, rounding_mode="floor") * scale
        angles = torch.cat([torch.outer(x, frequency), torch.outer(y, frequency)], dim=-1)
        tables[f"backbone.vision_backbone.trunk.blocks.{block}.attn.freqs_cis"] = torch.polar(
            torch.ones_like(angles), angles
        )
    return tables
