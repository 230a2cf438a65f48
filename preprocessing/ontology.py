"""Concepts: the canonical name, which is the text prompt, with synonyms, parent and code."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

import yaml

from infra.errors import DataError

FILE = Path(__file__).with_name("ontology.yaml")


@cache
def load() -> dict[str, dict[str, Any]]:
    """Concept -> {"synonyms": […], "parent": …, "snomed": …}; DataError where a name stands for two concepts."""
    raw: dict[str, dict[str, Any] | None] = yaml.safe_load(FILE.read_text(encoding="utf-8"))
    concepts = {name: value or {} for name, value in raw.items()}
    owner: dict[str, str] = {}
    for name, value in concepts.items():
        for prompt in (name, *value.get("synonyms", [])):
            if owner.setdefault(prompt, name) != name:
                msg = f"ontology.yaml: {prompt!r} stands for both {owner[prompt]!r} and {name!r}"
                raise DataError(msg)
    return concepts


Synonyms = Mapping[str, Sequence[str]]  # a card's own words: concept -> more names for it


def prompts(concept: str, own: Synonyms = MappingProxyType({})) -> list[str]:
    """The canonical name first, then synonyms and plurals, then a card's own words."""
    listed = [concept, *_entry(concept, own).get("synonyms", []), *own.get(concept, ())]
    return list(dict.fromkeys(listed))


def describe(concept: str, own: Synonyms = MappingProxyType({})) -> dict[str, Any]:
    """One value of `concepts.json`: {"prompts", "parent"} and "snomed" where it is known."""
    entry = _entry(concept, own)
    value: dict[str, Any] = {"prompts": prompts(concept, own), "parent": entry.get("parent")}
    if entry.get("snomed"):
        value["snomed"] = str(entry["snomed"])
    return value


def _entry(concept: str, own: Synonyms) -> dict[str, Any]:
    concepts = load()
    if concept not in concepts and concept not in own:
        msg = f"concept {concept!r} is not in preprocessing/ontology.yaml; add it with its synonyms"
        raise DataError(msg)
    return concepts.get(concept, {})
