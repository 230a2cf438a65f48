"""Concepts: the canonical name, which is the text prompt, with synonyms, plural, wording, parent, parts and code.

An entry of `ontology.yaml` may have

    synonyms: […]         other texts for the same thing, at any time
    plural: …             the text for all of them
    wording: {CT: […]}    texts that fit images of that modality only
    parent: …             the wider concept: what this one is a kind of, or a part of
    parts: […]            a union: this concept IS these concepts together and nothing else
    joined: true          the parts of a union make one object; else every part is an object of its own
    snomed: "…"           SNOMED CT concept id; with `side` (left, right) the id is of the unpaired structure

What a union means for truth: its objects are those of its parts; it is absent where every part was searched
for and is absent; where a part is unknown and none is there, the union is unknown. A parent says less: its
mask may hold more than those of its children, so nothing is derived from it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

import yaml

from infra.errors import DataError

FILE = Path(__file__).with_name("ontology.yaml")
KEYS = frozenset({"synonyms", "plural", "wording", "parent", "parts", "joined", "snomed", "side"})
SIDES = {"left": "7771000", "right": "24028007"}  # SNOMED CT qualifiers of laterality, as DICOM CID 244 lists them


@cache
def load() -> dict[str, dict[str, Any]]:
    """Concept -> entry; DataError where a name stands for two concepts or an entry names what is not there."""
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # libyaml is ten times faster, where it was built in
    raw: dict[str, dict[str, Any] | None] = yaml.load(FILE.read_text(encoding="utf-8"), Loader=loader)
    concepts = {name: value or {} for name, value in raw.items()}
    problems = list(_problems(concepts))
    if problems:
        msg = f"ontology.yaml: {problems[0]}"
        raise DataError(msg)
    return concepts


Synonyms = Mapping[str, Sequence[str]]  # a card's own words: concept -> more names for it
NO_WORDS: Synonyms = MappingProxyType({})


def prompts(concept: str, own: Synonyms = NO_WORDS) -> list[str]:
    """The canonical name, then synonyms and plurals, then a card's own words: what fits images of any modality."""
    entry = _entry(concept, own)
    listed = [concept, *entry.get("synonyms", []), *([entry["plural"]] if "plural" in entry else [])]
    return list(dict.fromkeys([*listed, *own.get(concept, ())]))


def describe(concept: str, modality: str = "", own: Synonyms = NO_WORDS) -> dict[str, Any]:
    """One value of `concepts.json`: {"prompts", "parent"}; where known "snomed", "snomed_laterality", "wording".

    "wording" are texts that only images of `modality` should be asked with. `own` are a card's own words.
    """
    entry = _entry(concept, own)
    value: dict[str, Any] = {"prompts": prompts(concept, own), "parent": entry.get("parent")}
    if entry.get("snomed"):
        value["snomed"] = str(entry["snomed"])
    if entry.get("side"):
        value["snomed_laterality"] = SIDES[entry["side"]]
    wording = entry.get("wording", {}).get(modality, [])
    if wording:
        value["wording"] = list(wording)
    return value


def parts_of(union: str) -> tuple[tuple[str, ...], bool]:
    """The parts of a union and whether they make one object; DataError where the concept is no union."""
    entry = _entry(union)
    if "parts" not in entry:
        msg = f"concept {union!r} has no parts in preprocessing/ontology.yaml; a card's unions must have"
        raise DataError(msg)
    return tuple(entry["parts"]), bool(entry.get("joined", False))


def ordered_unions(unions: Iterable[str]) -> tuple[str, ...]:
    """Unions so that each comes after those it is made of."""
    wanted, placed = list(unions), list[str]()
    while wanted:
        for union in wanted:
            if not set(parts_of(union)[0]) & set(wanted):
                placed.append(union)
        wanted = [union for union in wanted if union not in placed]
    return tuple(placed)


def _entry(concept: str, own: Synonyms = NO_WORDS) -> dict[str, Any]:
    concepts = load()
    if concept not in concepts and concept not in own:
        msg = f"concept {concept!r} is not in preprocessing/ontology.yaml; add it with its synonyms"
        raise DataError(msg)
    return concepts.get(concept, {})


def _texts(name: str, entry: dict[str, Any]) -> list[str]:
    wording = [text for texts in entry.get("wording", {}).values() for text in texts]
    return [name, *entry.get("synonyms", []), *([entry["plural"]] if "plural" in entry else []), *wording]


def _problems(concepts: dict[str, dict[str, Any]]) -> Iterable[str]:
    """What is wrong with the file, in words."""
    owner: dict[str, str] = {}
    for name, entry in concepts.items():
        if unknown := set(entry) - KEYS:
            yield f"{name!r} has the unknown key {sorted(unknown)[0]!r}"
        for text in _texts(name, entry):
            if owner.setdefault(text, name) != name:
                yield f"{text!r} stands for both {owner[text]!r} and {name!r}"
        for other in (*([entry["parent"]] if entry.get("parent") else []), *entry.get("parts", [])):
            if other not in concepts:
                yield f"{name!r} names {other!r}, which is no concept"
        if entry.get("side", "left") not in SIDES:
            yield f"the side of {name!r} is neither left nor right"
    for key in ("parent", "parts"):
        yield from _cycles(concepts, key)


def _cycles(concepts: dict[str, dict[str, Any]], key: str) -> Iterable[str]:
    done: set[str] = set()
    for start in concepts:
        path: list[str] = []
        stack = [(start, 0)]
        while stack:
            name, depth = stack.pop()
            del path[depth:]
            if name in path:
                yield f"{' > '.join([*path[path.index(name) :], name])} is a circle of {key}"
                return
            if name in done or name not in concepts:
                continue
            path.append(name)
            follow = concepts[name].get(key) or []
            stack += [(other, len(path)) for other in ([follow] if isinstance(follow, str) else follow)]
        done.add(start)
