"""Why a file was or was not taken by a card's expressions, for whoever writes the card."""

from __future__ import annotations

import difflib
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from preprocessing.cards import ABOUT_MANY, DatasetCard, RawCase
from preprocessing.expressions import Expression, compiled
from preprocessing.pairing import why_not_data

_EXAMPLES = 3
_LOOKED_AT = 2000  # unmatched files that near misses are searched among
_ENDING = re.compile(r"(?:\\\.(?:[A-Za-z0-9]+|\(\?:[A-Za-z0-9|.\\]+\)))+(?:\\Z|\$)?$")


def explain(card: DatasetCard, files: Iterable[str], written: Mapping[str, str]) -> list[dict[str, Any]]:
    """One entry for each expression of the card: {"layout", "role", "expression", "files", "examples", "near"}.

    A file counts for the first expression that takes it. "near": [{"why", "files", "example"}] of files that
    no expression takes and this one would if it were a little different. `written`: compiled -> as written.
    """
    listed = list(_expressions(card))
    taken: dict[int, list[str]] = {index: [] for index in range(len(listed))}
    left = []
    for file in files:
        if why_not_data(card, file) is not None:
            continue
        found = next((at for at, (_, _, text) in enumerate(listed) if compiled(text).fullmatch(file)), None)
        if found is None:
            left.append(file)
        else:
            taken[found].append(file)
    return [
        {
            "layout": layout,
            "role": role,
            "expression": written.get(text, text),
            "files": len(taken[index]),
            "examples": taken[index][:_EXAMPLES],
            "near": _near(text, left[:_LOOKED_AT]),
        }
        for index, (layout, role, text) in enumerate(listed)
    ]


def unknown_splits(card: DatasetCard, files: Iterable[str]) -> list[str]:
    """Texts of the field `split` that the card's `official_split` does not know."""
    found: set[str] = set()
    for _, _, text in _expressions(card):
        expression = compiled(text)
        if "split" in expression.fields:
            found |= {str(match["split"]) for file in files if (match := expression.fullmatch(file)) and match["split"]}
    return sorted(found - set(card.official_split))


def orphans(cases: list[RawCase]) -> dict[str, Any]:
    """Cases without a label or without an image, with examples and what probably keeps them apart."""
    images = [case for case in cases if case.images and not case.labels]
    labels = [case for case in cases if case.labels and not case.images]
    hint = ""
    if images and labels:
        names = {case.case_id: case for case in labels}
        for case in images[:20]:
            near = difflib.get_close_matches(case.case_id, list(names), n=1, cutoff=0.5)
            if near:
                hint = _difference(case.case_id, near[0])
                break
    return {
        "without_label": len(images),
        "without_label_examples": [case.images[0] for case in images[:_EXAMPLES]],
        "without_image": len(labels),
        "without_image_examples": [case.labels[0] for case in labels[:_EXAMPLES]],
        "hint": hint,
    }


def _difference(image: str, label: str) -> str:
    """How two case names differ, as advice."""
    parts = difflib.SequenceMatcher(None, image, label, autojunk=False).get_opcodes()
    apart = [(image[a:b], label[c:d]) for what, a, b, c, d in parts if what != "equal"]
    said = ", ".join(f"{left!r} against {right!r}" for left, right in apart[:3])
    return (
        f"the image's case is named {image!r} and the label's {label!r}: they differ in {said}. "
        "A pair needs equal names: put what differs outside of {case}"
    )


def _expressions(card: DatasetCard) -> Iterator[tuple[int, str, str]]:
    """(number of the layout, role, expression), in the order in which files are tried."""
    for number, layout in enumerate(card.layouts):
        listed = [("image", layout.image), ("label", layout.label), ("beside", layout.beside)]
        if isinstance(layout.labels or card.labels, ABOUT_MANY):
            listed = [listed[1], listed[0]]
        listed += [(f"reading {name}", text) for name, text in layout.readings.items()]
        yield from ((number, role, text) for role, text in listed if text)


def _near(text: str, files: list[str]) -> list[dict[str, Any]]:
    found: Counter[str] = Counter()
    examples: dict[str, str] = {}
    variants = list(_variants(text)) if files else []
    for file in files:
        why = next((why for why, expression in variants if expression.fullmatch(file)), None)
        if why:
            found[why] += 1
            examples.setdefault(why, file)
    return [{"why": why, "files": count, "example": examples[why]} for why, count in found.most_common()]


def _variants(text: str) -> Iterator[tuple[str, Expression]]:
    """The same expression, a little wider each time."""
    core = re.sub(r"^(?:\(\?!.*?\\Z\))+", "", text)  # what keeps a pattern from another's files
    loose = _ENDING.sub(lambda _: r"\.[^/]+", core) if _ENDING.search(core) else ""
    last = core.rpartition("/")[2]
    tries = [
        ("another case of letters", core),
        ("another ending", loose),
        ("another folder", rf"(?:.*/)?{last}"),
        ("another folder and another ending", rf"(?:.*/)?{loose.rpartition('/')[2]}" if loose else ""),
    ]
    for why, wider in tries:
        if wider:
            try:
                yield why, Expression(f"(?i){wider}")
            except re.error:
                continue  # cut in the middle of a group: no variant of this kind
