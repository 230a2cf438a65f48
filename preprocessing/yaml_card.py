"""A dataset's card as YAML, for data that needs no code: read strictly into the same `DatasetCard`.

`docs/bring-your-own-data.md` teaches the format. What is wrong is one UsageError with a line for each
problem: file and line, key, expected, found, fix.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

from infra.errors import UsageError
from preprocessing import ontology
from preprocessing.cards import DatasetCard, Layout
from preprocessing.expressions import MAX_LENGTH, compiled
from preprocessing.patterns import Pattern, PatternError, ahead, translate
from preprocessing.rules import ABOUT_MANY, Contours, Segments
from preprocessing.typed_yaml import BAD, Converter, Part, Reader
from preprocessing.yaml_text import MappingNode, Node, ScalarNode, SequenceNode, compose

SUFFIX = ".yaml"
REGEX = "regex:"
LONGEST_NAME = 255
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
RESERVED = ("train", "evaluate")  # the recipes of these steps lie beside those of the datasets
FIELDS = ("case", "group", "split", "part", "set", "within")
# What {split} says where the card has no `official_split`.
SPLIT_WORDS: dict[str, Any] = {
    word: split
    for split, words in {
        "train": ("train", "training", "Train", "Training", "TRAIN"),
        "val": ("val", "valid", "validation", "Val", "Validation", "VAL"),
        "test": ("test", "testing", "Test", "Testing", "TEST"),
    }.items()
    for word in words
}
# Where a card of a hospital differs from a card of a public dataset: unpublished, and closed until it says otherwise.
DEFAULTS: dict[tuple[str, str], Any] = {
    ("DatasetCard", "title"): "",
    ("DatasetCard", "citation"): "unpublished",
    ("DatasetCard", "homepage"): "",
    ("DatasetCard", "layout_checked"): "by the author of the card",
    ("DatasetCard", "public"): False,
}


@dataclass(frozen=True)
class ReadCard:
    """A card, and its expressions as they were written: compiled -> written."""

    card: DatasetCard
    written: Mapping[str, str]


def read_card(path: Path) -> ReadCard:
    """Read and check the card at `path`; UsageError with all that is wrong."""
    node = compose(path)
    kinds = _Expressions()
    texts: dict[tuple[str, str], tuple[Part, Converter]] = {
        ("Layout", "image"): ("text", kinds.path),
        ("Layout", "label"): ("text", kinds.path),
        ("Layout", "beside"): ("text", kinds.path),
        ("Layout", "readings"): ("values", kinds.path),
        ("DatasetCard", "not_data"): ("keys", kinds.path),
        ("DatasetCard", "group"): ("text", kinds.group),
    }
    reader = Reader(str(path), DEFAULTS, texts)
    card = reader.dataclass(node, DatasetCard, "")
    if card is not BAD:
        card = replace(card, title=card.title or card.name, synonyms=_vocabulary(card), **_split(card))
        card = replace(card, layouts=tuple(kinds.separated(layout) for layout in card.layouts))
        _judge(card, reader, node, kinds)
    if reader.problems:
        raise UsageError("\n".join(text for _, text in sorted(reader.problems, key=lambda each: each[0])))
    return ReadCard(card, kinds.written)


def yaml_cards(folder: Path | None) -> dict[str, Path]:
    """The card files of a folder, by name; none where there is no folder."""
    if folder is None or not folder.is_dir():
        return {}
    return {path.name.removesuffix(SUFFIX): path for path in sorted(folder.glob(f"*{SUFFIX}"))}


def from_folder(path: Path) -> DatasetCard:
    """The card of a file in a workspace's folder; UsageError where it is named in another way than its file."""
    card = read_card(path).card
    if path.name != f"{card.name}{SUFFIX}":
        msg = f"{path}: name: expected the name of the file, found {card.name!r}. Rename the one or the other"
        raise UsageError(msg)
    return card


class _Expressions:
    """Turns what people write into regular expressions and remembers what was written."""

    def __init__(self) -> None:
        self.written: dict[str, str] = {}
        self._patterns: dict[str, Pattern] = {}

    def path(self, reader: Reader, text: str, node: Node, key: str) -> Any:
        """An expression for whole paths below the root."""
        if text.startswith(REGEX):
            expression = _regular(reader, text.removeprefix(REGEX).strip(), node, key)
            if expression is not BAD and re.match(r"\^?/|.*\.\.(?:/|\\/)", expression.replace("\\.", ".")):
                return reader.problem(
                    node,
                    key,
                    "an expression for paths below the root",
                    repr(text),
                    "Paths begin at --root, no / or ../",
                )
        else:
            try:
                pattern = translate(text)
            except PatternError as wrong:
                return reader.problem(node, key, wrong.expected, wrong.found, wrong.fix)
            expression = pattern.expression
            self._patterns[expression] = pattern
        if expression is BAD or not _known_fields(reader, compiled(expression).fields, node, key):
            return BAD
        self.written[expression] = text
        return expression

    def group(self, reader: Reader, text: str, node: Node, key: str) -> Any:
        """An expression on the case id whose group 1 is the leakage unit."""
        if text.startswith(REGEX):
            expression = _regular(reader, text.removeprefix(REGEX).strip(), node, key)
            if expression is not BAD and re.compile(expression).groups < 1:
                return reader.problem(node, key, "an expression with a group ( )", repr(text), r"E.g. ^(p\d+)_")
            return expression
        try:
            pattern = translate(text)
        except PatternError as wrong:
            return reader.problem(node, key, wrong.expected, wrong.found, wrong.fix)
        if pattern.fields != ("group",):
            said = ", ".join(f"{{{name}}}" for name in pattern.fields) or "no field"
            return reader.problem(node, key, "a pattern for the case id with {group}", said, "E.g. {group:word}_*")
        return rf"\A{pattern.expression}\Z"

    def separated(self, layout: Layout) -> Layout:
        """`layout` with each pattern kept from the files of those that say more: see `patterns.ahead`."""
        listed = list(dict.fromkeys([layout.image, layout.label, *layout.readings.values()]))
        made: dict[str, str] = {}
        for text in listed:
            others = [self._patterns[other] for other in listed if other != text and other in self._patterns]
            wide = self._patterns.get(text)
            before = [ahead(wide, other, f"not{index}_") for index, other in enumerate(others)] if wide else []
            made[text] = "".join(before) + text
            self.written[made[text]] = self.written.get(text, text)
        readings = {name: made[text] for name, text in layout.readings.items()}
        return replace(layout, image=made[layout.image], label=made[layout.label], readings=readings)


def _regular(reader: Reader, text: str, node: Node, key: str) -> Any:
    if len(text) > MAX_LENGTH:
        return reader.problem(node, key, f"an expression of at most {MAX_LENGTH} characters", str(len(text)))
    counts = [int(number) for pair in re.findall(r"\{([0-9]*),?([0-9]*)\}", text) for number in pair if number]
    if max(counts, default=0) > LONGEST_NAME:
        return reader.problem(node, key, f"repeats of at most {LONGEST_NAME}", repr(text[:80]), "Names are no longer")
    try:
        compiled(text)
    except (re.error, RecursionError, OverflowError, MemoryError, ValueError) as wrong:
        return reader.problem(
            node, key, "a regular expression", f"{text!r}: {wrong}", "See Python's `re` for the syntax"
        )
    except Exception as wrong:
        if type(wrong).__module__.startswith("regex"):
            return reader.problem(node, key, "a regular expression", f"{text!r}: {wrong}")
        raise
    return text


def _known_fields(reader: Reader, names: tuple[str, ...], node: Node, key: str) -> bool:
    known = True
    for name in names:
        if name not in FIELDS:
            near = difflib.get_close_matches(name, FIELDS, n=1, cutoff=0.5)
            fix = f"Did you mean {{{near[0]}}}?" if near else "Write * for text that does not matter"
            expected = f"the fields {', '.join(f'{{{each}}}' for each in FIELDS)}"
            known = reader.problem(node, key, expected, f"{{{name}}}", fix) is not BAD
    return known


def _vocabulary(card: DatasetCard) -> dict[str, tuple[str, ...]]:
    """The card's synonyms, with an empty entry for what the ontology does not know: its name is its prompt."""
    known = ontology.load()
    return {**{concept: () for concept in card.concepts if concept not in known}, **card.synonyms}


def _split(card: DatasetCard) -> dict[str, Any]:
    uses = any("split" in compiled(text).fields for text in _paths(card))
    return {"official_split": SPLIT_WORDS} if uses and not card.official_split else {}


def _paths(card: DatasetCard) -> Iterator[str]:
    for layout in card.layouts:
        yield from (text for text in (layout.image, layout.label, layout.beside, *layout.readings.values()) if text)


def _nameless(card: DatasetCard) -> Iterator[str]:
    """Expressions without {case} that need it: not those of files that name their cases inside."""
    if any(isinstance(layout.labels or card.labels, Segments | Contours) for layout in card.layouts):
        return
    for layout in card.layouts:
        inside = isinstance(layout.labels or card.labels, ABOUT_MANY)
        listed = [layout.image, "" if inside else layout.label, layout.beside, *layout.readings.values()]
        yield from (text for text in listed if text and "case" not in compiled(text).fields)


def _judge(card: DatasetCard, reader: Reader, node: Node, kinds: _Expressions) -> None:
    """What the types do not say."""

    def wrong(value: Any, key: str, expected: str, found: str, fix: str = "") -> None:
        reader.problem(_find(node, value) or _find(node, key.split(".")[0]), key, expected, found, fix)

    if not NAME.fullmatch(card.name) or card.name in RESERVED:
        wrong(card.name, "name", "letters, digits, dot, dash and underscore, at most 64", repr(card.name))
    if not card.modality.strip():
        wrong("modality", "modality", "a word such as CT, ultrasound, fundus photography", "nothing")
    if not card.layouts:
        wrong("layouts", "layouts", "at least one layout", "an empty list")
    for text in _nameless(card):
        written = kinds.written.get(text, text)
        fix = "Put {case} where the name of the case stands, (?P<case>…) in a regular expression"
        wrong(written, "layouts", "the field {case}", repr(written), fix)
    _judge_words(card, wrong)
    _judge_numbers(card, wrong)
    if card.official is not None:
        if not card.official.url.startswith(("https://", "http://")):
            wrong(card.official.url, "official.url", "an address that begins with https://", repr(card.official.url))
        root = PurePosixPath(card.official.root)
        if root.is_absolute() or ".." in root.parts or "\\" in card.official.root:
            wrong(card.official.root, "official.root", "a folder inside the archive", repr(card.official.root))


def _judge_words(card: DatasetCard, wrong: Any) -> None:
    known = ontology.load()
    owner = {prompt: name for name, value in known.items() for prompt in (name, *value.get("synonyms", []))}
    for concept in card.concepts:
        if not concept or concept != " ".join(concept.lower().split()):
            wrong(concept, "labels", "a concept in plain lower-case words", repr(concept), "It is the text prompt")
        elif owner.get(concept, concept) != concept:
            wrong(concept, "labels", "one name for a thing", repr(concept), f"Here it is called {owner[concept]!r}")
    for concept in card.searched:
        if concept not in card.concepts:
            near = difflib.get_close_matches(concept, card.concepts, n=1, cutoff=0.5)
            fix = f"Did you mean {near[0]!r}?" if near else f"The label rule gives {', '.join(card.concepts)}"
            wrong(concept, "searched", "concepts of the label rule", repr(concept), fix)
    for concept, words in card.synonyms.items():
        if concept not in card.concepts:
            wrong(concept, "synonyms", "concepts of the label rule", repr(concept))
        for word in words:
            if owner.get(word, concept) != concept or (word in card.concepts and word != concept):
                taken = owner.get(word, word)
                wrong(word, f"synonyms.{concept}", "words for this concept alone", f"{word!r}, which means {taken!r}")


_RANGES = {  # (class, field) -> least and most
    ("ByValue", "tolerance"): (0, 32767), ("ByColour", "tolerance"): (0, 255),
    ("Binary", "threshold"): (0, 254), ("Binary", "max_between"): (0, 1),
}  # fmt: skip


def _judge_numbers(card: DatasetCard, wrong: Any) -> None:
    for part in _dataclasses(card):
        kind = type(part).__name__
        for each in fields(part):
            value = getattr(part, each.name)
            if (kind, each.name) in _RANGES:
                least, most = _RANGES[kind, each.name]
                if not least <= value <= most:
                    wrong(value, f"{kind}.{each.name}", f"a number from {least} to {most}", str(value))
        if kind == "Intensity":
            low, high = part.limits
            if low >= high or (part.rule == "percentile" and not 0 <= low < high <= 100):
                expected = "two percentiles from 0 to 100" if part.rule == "percentile" else "two numbers"
                wrong("limits", "intensity.limits", f"{expected}, the lower one first", f"[{low}, {high}]")
        if kind == "ByColour":
            for colour, concept in part.colours:
                if not all(0 <= channel <= 255 for channel in colour) or not any(colour):
                    fix = "Black is background" if not any(colour) else ""
                    wrong(concept, "labels.colours", "red, green and blue from 0 to 255", str(list(colour)), fix)
        if kind == "ByValue" and part.background in part.values:
            said = f"{part.background} for {part.values[part.background]!r}"
            wrong(str(part.background), "labels.values", "values other than the background's", said)


def _dataclasses(value: Any) -> Iterator[Any]:
    if is_dataclass(value):
        yield value
        for each in fields(value):
            yield from _dataclasses(getattr(value, each.name))
    elif isinstance(value, tuple | list):
        for item in value:
            yield from _dataclasses(item)
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _dataclasses(item)


def _find(node: Node, value: Any) -> Node | None:
    """The first scalar that says `value`, for its line."""
    if isinstance(node, ScalarNode):
        return node if str(node.value) == str(value) else None
    children: list[Node] = []
    if isinstance(node, MappingNode):
        children = [child for pair in node.value for child in pair]
    elif isinstance(node, SequenceNode):
        children = list(node.value)
    return next((found for child in children if (found := _find(child, value)) is not None), None)
