"""Find cases: match paths against a card's layouts and put equal case names together."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from infra.errors import DataError
from preprocessing.cards import ABOUT_MANY, DatasetCard, Layout, RawCase, SplitHint
from preprocessing.expressions import Expression, compiled
from preprocessing.inventory import badly_named, names_below

# What unpackers and desktops leave behind, and what every dataset may carry beside its data.
COMMON_NOT_DATA = {
    r"(.*/)?(README|LICEN[CS]E|CITATION|CHANGELOG)[^/]*": "a text about the dataset",
    r"(.*/)?(\.DS_Store|Thumbs\.db|\._[^/]*)": "left by a desktop",
    r"__MACOSX/.*": "left by a desktop",
}


@dataclass
class _Found:
    layout: Layout
    images: list[str] = field(default_factory=list)
    labels: list[str] = field(default_factory=list)
    readings: dict[str, list[str]] = field(default_factory=dict)
    parts: dict[str, str] = field(default_factory=dict)
    beside: list[str] = field(default_factory=list)
    set: str = ""
    split: SplitHint = ""
    group: str = ""


def files_below(root: Path) -> list[str]:
    """Every file below `root`, relative, posix, sorted; DataError where the folder is missing.

    The same files as in the inventory: see `preprocessing.inventory.scan`.
    """
    if not root.is_dir():
        msg = f"the dataset's folder is missing: expected a folder at {root}"
        raise DataError(msg)
    return sorted(names_below(root))


def find_cases(card: DatasetCard, root: Path) -> Iterator[RawCase]:
    """The cases of `card` below `root`, sorted by case id. Orphans are cases too: see `RawCase`.

    Files that hold many images are opened as far as it takes to name the images in them.
    """
    from preprocessing.many import expand  # it needs the readers, which need this module

    yield from sorted(expand(pair(card, files_below(root)), card, root), key=lambda case: case.case_id)


def pair(card: DatasetCard, files: list[str]) -> list[RawCase]:
    """Pair relative paths by the card's layouts. A path belongs to the first expression that matches it.

    Nothing is opened: a stack is one case, and a COCO file is a label of every image of its `(?P<set>…)`,
    or a case of its own where there is none.
    """
    found: dict[str, _Found] = {}
    shared: dict[tuple[int, str], list[str]] = {}  # (layout, set) -> COCO files
    patterns = [(layout, _compiled(layout)) for layout in card.layouts]
    excluded = [compiled(pattern) for pattern in {**card.not_data, **COMMON_NOT_DATA}]
    for file in files:
        if badly_named(file) or any(pattern.fullmatch(file) for pattern in excluded):
            continue
        for number, (layout, expressions) in enumerate(patterns):
            if isinstance(layout.labels or card.labels, ABOUT_MANY) and layout.label:
                match = compiled(layout.label).fullmatch(file)
                if match is not None:
                    shared.setdefault((number, match.groupdict().get("set") or ""), []).append(file)
                    break
            if _claim(card, found, layout, expressions, file):
                break
    for (number, name), listed in shared.items():
        layout = card.layouts[number]
        members = [item for item in found.values() if item.layout is layout and item.set == name]
        for item in members or [found.setdefault(listed[0], _Found(layout))]:
            item.labels += listed
    named: dict[str, list[tuple[str, RawCase]]] = {}
    for key, item in found.items():
        case = _case(card, key, item)
        for each in one_case_an_image([case]) if item.layout.each_image else [case]:
            named.setdefault(each.case_id, []).append((key if each is case else each.images[0], each))
    cases = [case for same in named.values() for case in _told_apart(same)]
    return sorted(cases, key=lambda case: case.case_id)


def _told_apart(same: list[tuple[str, RawCase]]) -> Iterator[RawCase]:
    """Cases whose names differ in signs alone that an id does not keep ("a b", "a_b"): ids of their own, one group."""
    for key, case in same:
        digest = hashlib.sha256(key.encode()).hexdigest()[:8]
        yield case if len(same) == 1 else replace(case, case_id=f"{case.case_id}-{digest}")


def one_case_an_image(cases: Iterable[RawCase]) -> Iterator[RawCase]:
    """Split cases with several images (the sequences of one MR study) into one case each, all with the same truth."""
    for case in cases:
        if len(case.images) < 2:
            yield case
        for image in case.images if len(case.images) > 1 else ():
            stem = clean_id(image.rsplit("/", 1)[-1].split(".", 1)[0])
            yield replace(
                case, case_id=stem if stem.startswith(case.case_id) else f"{case.case_id}_{stem}", images=(image,)
            )


def one_case_a_label(cases: Iterable[RawCase]) -> Iterator[RawCase]:
    """Split cases with several labels into one case each, all with the same images: labels that are no one truth."""
    for case in cases:
        if len(case.labels) < 2:
            yield case
        for label in case.labels if len(case.labels) > 1 else ():
            stem = clean_id(label.rsplit("/", 1)[-1].split(".", 1)[0])
            yield replace(case, case_id=f"{case.case_id}_{stem}", labels=(label,))


def clean_id(text: str) -> str:
    """A case id that is safe in paths and keys: letters and digits of any script, dot, dash, underscore."""
    return re.sub(r"[^\w.-]+", "_", unicodedata.normalize("NFC", text)).strip("_")


def group_of(card: DatasetCard, case_id: str) -> str:
    """The leakage unit of a case: group 1 of the card's expression, else the case itself."""
    match = compiled(card.group).search(case_id) if card.group else None
    return str(match.group(1)) if match else case_id


def why_not_data(card: DatasetCard, file: str) -> str | None:
    """Why a file is no data by the card or by common sense, or None."""
    for pattern, why in {**card.not_data, **COMMON_NOT_DATA}.items():
        if compiled(pattern).fullmatch(file):
            return why
    return None


def _compiled(layout: Layout) -> list[tuple[str, Expression]]:
    listed = [("image", layout.image), ("label", layout.label), ("beside", layout.beside), *layout.readings.items()]
    return [(name, compiled(pattern)) for name, pattern in listed if pattern]


def _claim(
    card: DatasetCard,
    found: dict[str, _Found],
    layout: Layout,
    expressions: list[tuple[str, Expression]],
    file: str,
) -> bool:
    for name, pattern in expressions:
        match = pattern.fullmatch(file)
        if match is None:
            continue
        named = match.groupdict()
        group = named.get("group") or ""
        within = named.get("within") or group  # patient 1's image 1 is not patient 2's
        key = f"{within}/{match['case']}" if within else match["case"]
        # an archive packed on a Mac spells an accented letter as two, and the next one as one
        item = found.setdefault(unicodedata.normalize("NFC", key), _Found(layout, group=group))
        if name != "image" and named.get("part"):
            item.parts[file] = named["part"].lower()
        item.set = named.get("set") or item.set
        if name == "image":
            item.images.append(file)
        elif name == "label":
            item.labels.append(file)
        elif name == "beside":
            item.beside.append(file)
        else:
            item.readings.setdefault(name, []).append(file)
        if named.get("split"):
            item.split = card.official_split.get(named["split"], "")
        return True
    return False


def _case(card: DatasetCard, key: str, item: _Found) -> RawCase:
    case_id = clean_id(key)
    return RawCase(
        case_id=case_id,
        group=item.group or group_of(card, case_id),
        images=tuple(item.images),
        labels=tuple(item.labels or (item.images if item.layout.label_key and not item.layout.label else ())),
        readings=tuple((name, tuple(files)) for name, files in sorted(item.readings.items())),
        split=item.split,
        rule=item.layout.labels,
        instances=item.layout.instances,
        layout=item.layout,
        parts=tuple(sorted(item.parts.items())),
        beside=tuple(item.beside),
    )
