"""Fields of a recipe set by name in params.yaml (`train.overrides`), each checked against the field's own type."""

from __future__ import annotations

import math
import typing
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Literal

from infra.errors import UsageError
from training.recipes import Recipe

ELSEWHERE = {
    "name": "train.recipe",
    "sam3": "train.width",
    "image_size": "train.image_size",
    "seed": "train.seed",
    "steps": "train.steps",
    "freeze": "train.freeze",
    "lora": "train.lora",
    "preprocessing": "train.start",
}
"""Fields with a key of their own."""


def overridden(recipe: Recipe, values: Mapping[str, Any]) -> Recipe:
    """`recipe` with other values; UsageError that names the key where a field or its type is wrong."""
    types = typing.get_type_hints(Recipe)
    changes = {}
    for name, value in values.items():
        where = f"params.yaml: train.overrides.{name}"
        if name in ELSEWHERE:
            msg = f"{where}: expected a field without a key of its own, found {name}: set {ELSEWHERE[name]} instead"
            raise UsageError(msg)
        if name not in types:
            known = ", ".join(sorted(types.keys() - ELSEWHERE))
            msg = f"{where}: expected a field of a recipe ({known}), found {name!r}"
            raise UsageError(msg)
        changes[name] = _checked(where, types[name], value)
    for name, allowed in (("augment", _augment_knobs), ("losses", _loss_names)):
        if name in changes:
            _known_keys(f"params.yaml: train.overrides.{name}", changes[name], allowed())
            # what is not named stays as the recipe has it
            changes[name] = {**getattr(recipe, name), **changes[name]}
    return replace(recipe, **changes)


def _checked(where: str, kind: Any, value: Any) -> Any:
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is Literal:
        if value in arguments:
            return value
        expected = " or ".join(map(repr, arguments))
    elif origin is tuple and arguments[-1] is Ellipsis:
        if isinstance(value, list | tuple):
            return tuple(_checked(where, arguments[0], item) for item in value)
        expected = f"a list of {_words(arguments[0])}"
    elif origin is tuple:
        if isinstance(value, list | tuple) and len(value) == len(arguments):
            return tuple(_checked(where, part, item) for part, item in zip(arguments, value, strict=True))
        expected = f"a list of {len(arguments)} {_words(arguments[0])}"
    elif origin is dict:
        if isinstance(value, Mapping):
            return {str(key): _checked(f"{where}.{key}", arguments[1], item) for key, item in value.items()}
        expected = f"keys with {_words(arguments[1])} each"
    elif kind is float:
        number = _number(value)
        if number is not None:
            return number
        expected = "a finite number"
    else:
        # bool is an int to Python, not to whoever writes a file
        if type(value) is kind:
            return value
        expected = _words(kind)
    msg = f"{where}: expected {expected}, found {value!r}"
    raise UsageError(msg)


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)  # YAML 1.1 reads 1e-4, without a point, as text
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _words(kind: Any) -> str:
    names = {bool: "true or false", int: "a whole number", float: "a finite number", str: "text"}
    return names.get(kind, str(kind))


def _known_keys(where: str, values: Mapping[str, Any], known: tuple[str, ...]) -> None:
    for key in values:
        if key not in known:
            msg = f"{where}.{key}: expected one of {', '.join(known)}, found {key!r}"
            raise UsageError(msg)


def _augment_knobs() -> tuple[str, ...]:
    from training.augment import KNOBS  # torch is loaded for whoever overrides them, and for no one else

    return KNOBS


def _loss_names() -> tuple[str, ...]:
    from training.sam3.losses import LossWeights

    return tuple(LossWeights.__dataclass_fields__)
