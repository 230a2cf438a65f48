"""A card as YAML: the same card as in Python, and every mistake is a line that says how to mend it."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pytest
import yaml

from infra.errors import UsageError
from preprocessing import cards, ontology
from preprocessing.cards import all_cards, load_card
from preprocessing.recipe import recipe_file
from preprocessing.typed_yaml import BAD, Reader
from preprocessing.yaml_card import read_card
from preprocessing.yaml_text import compose

GOOD = """\
name: MyPolyps
modality: endoscopy
licence: {terms: internal use, redistribution: no, commercial: no}
layouts:
  - image: images/{case}.png
    label: masks/{case}.png
labels: {kind: Binary, concept: polyp}
"""


def card_file(folder: Path, text: str, name: str = "my.yaml") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def refusal(folder: Path, text: str) -> str:
    with pytest.raises(UsageError) as caught:
        read_card(card_file(folder, text))
    return str(caught.value)


def test_the_least_card_is_closed_and_says_nothing_it_does_not_know(tmp_path: Path) -> None:
    card = read_card(card_file(tmp_path, GOOD)).card
    assert card.licence.redistribution == "no"
    assert not card.public
    assert card.searched == ()
    assert card.title == "MyPolyps"
    assert card.layouts[0].image == r"images/(?P<case>[^/]+)\.png"


@pytest.mark.parametrize("name", sorted(all_cards()))
def test_every_built_in_card_can_be_said_in_yaml(name: str, tmp_path: Path) -> None:
    """What Python can say, YAML can: the resolved card, written as YAML with regex:, is the card again."""
    card = load_card(name)
    plain = json.loads(json.dumps(dataclasses.asdict(card)))

    def kinds(value: object, made: object) -> object:
        if dataclasses.is_dataclass(value) and isinstance(made, dict):
            rule = isinstance(value, cards.LabelRule)
            inner = {key: kinds(getattr(value, key), item) for key, item in made.items()}
            return {"kind": type(value).__name__, **inner} if rule else inner
        if isinstance(value, tuple) and isinstance(made, list):
            return [kinds(left, right) for left, right in zip(value, made, strict=True)]
        if isinstance(value, dict) and isinstance(made, dict):
            return {key: kinds(item, made[str(key)]) for key, item in value.items()}
        return made

    said = kinds(card, plain)
    assert isinstance(said, dict)
    for layout in said["layouts"]:
        for key in ("image", "label", "beside"):
            layout[key] = f"regex:{layout[key]}" if layout[key] else None
        layout["readings"] = {key: f"regex:{text}" for key, text in layout["readings"].items()}
        for key in [key for key, value in layout.items() if value is None]:
            del layout[key]
    said["group"] = f"regex:{said['group']}" if said["group"] else None
    said["not_data"] = {f"regex:{key}": why for key, why in said["not_data"].items()}
    text = yaml.safe_dump({key: value for key, value in said.items() if value is not None}, sort_keys=False)
    read = read_card(card_file(tmp_path, text)).card
    # a split field without official_split gets the usual words, and unknown concepts an empty entry
    same = dataclasses.replace(read, official_split=card.official_split, synonyms=card.synonyms)
    assert same.resolved() == card.resolved()


MISTAKES = [  # (old, new, words of the message); + adds a line below
    ("modality: endoscopy", "modality: 3", "my.yaml:2: modality: expected a text, found the number 3"),
    ("licence:", "license:", "my.yaml:3: license: expected no such key, found 'license'. Did you mean licence"),
    ("terms: internal use", "term: x", "licence.term: expected no such key, found 'term'. Did you mean terms?"),
    ("modality: endoscopy\n", "", "modality: expected this key, found nothing"),
    ("redistribution: no", "redistribution: false", "expected one of yes, no, unknown, found the truth value false"),
    ("kind: Binary, ", "", "labels.kind: expected one of ByValue, ByColour, Binary"),
    ("kind: Binary", "kind: Binery", "found 'Binery'. Did you mean Binary"),
    ("concept: polyp", "concept: polyp, threshold: high", "labels.threshold: expected a whole number"),
    ("concept: polyp", "concept: polyp, threshold: 300", "Binary.threshold: expected a number from 0 to 254"),
    ("concept: polyp", "concept: Polyp", "expected a concept in plain lower-case words, found 'Polyp'"),
    ("images/{case}.png", "images/{Case}.png", "found {Case}. Did you mean {case}?"),
    ("images/{case}.png", "images/*.png", "expected the field {case}, found 'images/*.png'"),
    ("images/{case}.png", "../images/{case}.png", "without ./, ../"),
    ("images/{case}.png", "'regex:images/(?P<case>.+'", "expected a regular expression"),
    ("images/{case}.png", "'regex:/data/(?P<case>.+)'", "expected an expression for paths below the root"),
    ("images/{case}.png", "'regex:\\.\\./(?P<case>.+)'", "expected an expression for paths below the root"),
    ("images/{case}.png", "{case}.png", "expected"),
    ("name: MyPolyps", "name: ../../etc/passwd", "name: expected letters, digits"),
    ("name: MyPolyps", "name: train", "name: expected letters, digits"),
    ("name: MyPolyps", "+name: Other", "name: expected a key once"),
    ("name: MyPolyps", "+searched: polyp", "searched: expected a list, found the text 'polyp'. Write [polyp]"),
    ("name: MyPolyps", "+searched: [polyps]", "searched: expected concepts of the label rule, found 'polyps'. Did"),
    ("name: MyPolyps", "+group: p_*", "group: expected a pattern for the case id with {group}, found no field"),
    ("name: MyPolyps", "+group: 'regex:^p'", "expected an expression with a group"),
    ("name: MyPolyps", "+intensity: {rule: window, limits: [240, -160]}", "the lower one first"),
    ("name: MyPolyps", "+intensity: {rule: window, limits: [240]}", "expected a list of 2, found a list of 1"),
    ("name: MyPolyps", "+synonyms: {polyp: [liver]}", "expected words for this concept alone"),
    ("name: MyPolyps", "+official_split: {a: training}", "expected one of '', train, val, test"),
    ("name: MyPolyps", "name: &a MyPolyps\ntitle: *a", "expected plain YAML, found an anchor or alias"),
    ("name: MyPolyps", "name: !!python/object/apply:os.system [echo]", "expected plain YAML, found the tag"),
    ("name: MyPolyps", "name: [MyPolyps", "expected YAML, found"),
    ("name: MyPolyps", "+---\nname: b", "expected one card, found a second document"),
]  # fmt: skip


@pytest.mark.parametrize(("old", "new", "words"), MISTAKES)
def test_a_mistake_is_named_with_line_key_expected_found_and_fix(
    old: str, new: str, words: str, tmp_path: Path
) -> None:
    said = refusal(tmp_path, GOOD.replace(old, f"{old}\n{new[1:]}" if new.startswith("+") else new))
    assert "my.yaml" in said
    assert words in said, said


def test_all_mistakes_are_said_at_once_in_the_order_of_the_file(tmp_path: Path) -> None:
    said = refusal(tmp_path, GOOD.replace("Binary", "Binery").replace("licence", "license")).splitlines()
    assert [line.split(":")[1] for line in said[-2:]] == ["3", "7"]


def test_words_of_yaml_1_2_are_words(tmp_path: Path) -> None:
    text = GOOD.replace("internal use", "on") + "title: 2024-05-01\ncitation: 'off'\n"
    card = read_card(card_file(tmp_path, text)).card
    assert (card.licence.terms, card.title, card.citation) == ("on", "2024-05-01", "off")


def test_colours_are_read_as_web_colours_and_as_lists(tmp_path: Path) -> None:
    one = GOOD.replace("{kind: Binary, concept: polyp}", "{kind: by-colour, colours: {'#00FF00': polyp}}")
    two = GOOD.replace("{kind: Binary, concept: polyp}", "{kind: ByColour, colours: [[[0, 255, 0], polyp]]}")
    assert read_card(card_file(tmp_path, one)).card == read_card(card_file(tmp_path, two)).card


def test_a_concept_of_ones_own_needs_no_ontology(tmp_path: Path) -> None:
    text = GOOD.replace("concept: polyp", "concept: widget of my lab") + "synonyms: {widget of my lab: [lab widget]}\n"
    card = read_card(card_file(tmp_path, text)).card
    assert "widget of my lab" not in ontology.load()
    assert recipe_file(card)["concepts"]["widget of my lab"]["prompts"] == ["widget of my lab", "lab widget"]


def test_the_recipe_is_that_of_what_the_card_says_not_of_how_it_is_written(tmp_path: Path) -> None:
    plain = recipe_file(read_card(card_file(tmp_path, GOOD)).card)
    commented = recipe_file(read_card(card_file(tmp_path, f"# a comment\n{GOOD}")).card)
    changed = recipe_file(read_card(card_file(tmp_path, f"{GOOD}searched: [polyp]\n")).card)
    assert plain == commented
    assert plain["card"] != changed["card"]


def test_a_folder_of_cards_is_found_by_name_and_never_hides_a_built_in_card(tmp_path: Path) -> None:
    card_file(tmp_path, GOOD, "MyPolyps.yaml")
    assert load_card("mypolyps", tmp_path).name == "MyPolyps"
    assert "MyPolyps" in all_cards(tmp_path)
    assert load_card("busi", tmp_path).name == "BUSI"
    with pytest.raises(UsageError, match="Did you mean MyPolyps"):
        load_card("mypolips", tmp_path)
    card_file(tmp_path, GOOD, "Other.yaml")
    with pytest.raises(UsageError, match="name: expected the name of the file, found 'MyPolyps'"):
        load_card("Other", tmp_path)
    card_file(tmp_path, GOOD.replace("MyPolyps", "BUSI"), "BUSI.yaml")
    with pytest.raises(UsageError, match="built-in card"):
        load_card("BUSI", tmp_path)


@dataclass(frozen=True)
class _Unseen:
    """A rule that the reader was never told of."""

    by_name: dict[str, tuple[int, ...]]
    axes: Literal["zyx", "xyz"] = "zyx"
    key: str | None = None
    inner: tuple[_Other, ...] = field(default=())


@dataclass(frozen=True)
class _Other:
    share: float


def test_a_class_of_next_year_is_read_by_its_type_hints(tmp_path: Path) -> None:
    node = compose(card_file(tmp_path, "kind: _unseen\nby_name: {a: [1, 2]}\naxes: xyz\ninner: [{share: 1}]\nkey: ~\n"))
    reader = Reader("my.yaml", {}, {})
    value = reader.read(node, _Unseen | _Other, "labels")
    assert value == _Unseen({"a": (1, 2)}, "xyz", None, (_Other(1.0),))
    assert reader.read(node, _Other, "labels") is BAD
