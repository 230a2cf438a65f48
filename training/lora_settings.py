"""What `train.lora` of params.yaml says, checked. Needs no torch, so that whoever launches a run need not load it."""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from infra.errors import UsageError

_ATTENTION_AND_MLP = r"(q_proj|k_proj|v_proj|o_proj|out_proj|fc1|fc2)"
ADAPTED = {
    "vision": rf"vision_encoder\.backbone\.layers\.\d+\..*{_ATTENTION_AND_MLP}",
    "text": rf"text_encoder\.text_model\.encoder\.layers\.\d+\..*{_ATTENTION_AND_MLP}",
    "geometry": rf"geometry_encoder\.layers\.\d+\..*{_ATTENTION_AND_MLP}",
    "detr": rf"detr_(encoder|decoder)\.layers\.\d+\..*{_ATTENTION_AND_MLP}",
}
"""Parts that can have adapters: names of their linear layers. All linear ones of a transformer layer, since attention
alone falls behind full fine-tuning (Dettmers et al., arXiv:2305.14314, figure 2)."""
WHOLE = {
    "heads": r"(mask_decoder|dot_product_scoring|detr_decoder\.(?!layers\.)\w+)",
    "neck": r"vision_encoder\.neck",
    "geometry": r"geometry_encoder",
}
"""Small parts that can be trained as they are, by the modules that they consist of."""
_FEWEST, _MOST_RANK = 1, 1024


@dataclass(frozen=True)
class Lora:
    """Low-rank adapters (Hu et al., arXiv:2106.09685) in place of full fine-tuning.

    A linear layer's weight W stays, and `alpha / rank` · B · A is added to it; A (rank, inputs) and B (outputs, rank)
    are what is trained. B starts at zero, so that a run starts from exactly the weights that it was given.
    """

    rank: int
    alpha: float = 0.0  # 0: as the rank, so that the factor is 1
    dropout: float = 0.0  # of an adapter's input
    rate: float = 10.0  # factor on the learning rate of adapters, beside their part's and depth's
    parts: tuple[str, ...] = ("vision", "text", "detr")  # of `ADAPTED`
    full: tuple[str, ...] = ("heads",)  # of `WHOLE`: trained as they are

    @property
    def scale(self) -> float:
        """Factor on B · A."""
        return (self.alpha or self.rank) / self.rank


def lora_of(settings: Mapping[str, Any] | None) -> Lora | None:
    """The settings of `train.lora`; None where its rank is 0. UsageError that names the key which is wrong."""
    given = dict(settings or {})
    known = [each.name for each in fields(Lora)]
    if wrong := sorted(given.keys() - set(known)):
        msg = f"params.yaml: train.lora.{wrong[0]}: expected one of {', '.join(known)}, found {wrong[0]!r}"
        raise UsageError(msg)
    if not given.get("rank"):
        return None
    rank = given["rank"]
    if type(rank) is not int or not _FEWEST <= rank <= _MOST_RANK:
        raise _wrong("rank", f"a whole number of {_FEWEST} to {_MOST_RANK}, or 0 for no adapters", rank)
    given["alpha"] = _number(given, "alpha", "0 (as the rank) or more")
    given["dropout"] = _number(given, "dropout", "0 or more and less than 1", below=1.0)
    given["rate"] = _number(given, "rate", "more than 0", zero=False)
    for name, allowed in (("parts", ADAPTED), ("full", WHOLE)):
        names = tuple(given.get(name, getattr(Lora, name)))
        if unknown := [each for each in names if each not in allowed]:
            raise _wrong(name, f"some of {', '.join(allowed)}", ", ".join(map(str, unknown)))
        # in the order of the table, so that equal settings are equal
        given[name] = tuple(each for each in allowed if each in names)
    if not given["parts"]:
        raise _wrong("parts", f"at least one of {', '.join(ADAPTED)}", "none")
    if both := [name for name in given["full"] if name in given["parts"]]:
        raise _wrong("full", "parts that have no adapters", f"{', '.join(both)}, which train.lora.parts has too")
    return Lora(**given)


def _number(given: Mapping[str, Any], key: str, expected: str, *, below: float = math.inf, zero: bool = True) -> float:
    value = given.get(key, getattr(Lora, key))
    number = math.nan if isinstance(value, bool) or not isinstance(value, int | float) else float(value)
    if not 0 <= number < below or (number == 0 and not zero):  # never true of what is no number
        raise _wrong(key, expected, value)
    return number


def _wrong(key: str, expected: str, found: Any) -> UsageError:
    return UsageError(f"params.yaml: train.lora.{key}: expected {expected}, found {found!r}")


def need_peft() -> None:
    """UsageError where the package that makes the adapters is not installed."""
    if importlib.util.find_spec("peft") is None:
        msg = (
            "params.yaml: train.lora: expected the package peft, found none. "
            "Install the project with its extra `lora`, or set train.lora.rank to 0 for full fine-tuning"
        )
        raise UsageError(msg)


def refuse_with(lora: Lora, *, freeze: tuple[str, ...], start: str) -> None:
    """UsageError for what adapters do not go with."""
    if freeze:
        msg = (
            f"params.yaml: train.freeze: expected nothing beside train.lora, which freezes all but its adapters and "
            f"train.lora.full, found {', '.join(freeze)}. Leave these parts out of train.lora.parts instead"
        )
        raise UsageError(msg)
    if not start:
        msg = (
            "params.yaml: train.lora: expected weights to start from (train.start), found none: adapters of rank "
            f"{lora.rank} adapt what is learnt, and our own initialisation is random. Set train.start, or "
            "train.lora.rank to 0"
        )
        raise UsageError(msg)
