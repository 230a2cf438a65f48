"""Concepts: the canonical name, which is the text prompt, with synonyms, parent and code."""

from __future__ import annotations

from functools import cache
from pathlib import Path
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


def prompts(concept: str) -> list[str]:
    """The canonical name first, then synonyms and plurals."""
    return [concept, *_entry(concept).get("synonyms", [])]


def describe(concept: str) -> dict[str, Any]:
    """One value of `concepts.json`: {"prompts", "parent"} and "snomed" where it is known."""
    entry = _entry(concept)
    value: dict[str, Any] = {"prompts": prompts(concept), "parent": entry.get("parent")}
    if entry.get("snomed"):
        value["snomed"] = str(entry["snomed"])
    return value


def _entry(concept: str) -> dict[str, Any]:
    concepts = load()
    if concept not in concepts:
        msg = f"concept {concept!r} is not in preprocessing/ontology.yaml; add it with its synonyms"
        raise DataError(msg)
    return concepts[concept]
