"""The card language: what a rule says, how a card is written down, and which files an expression claims."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from infra.errors import UsageError
from preprocessing.cards import (
    RULES,
    Binary,
    ByChannel,
    ByFile,
    Coco,
    DatasetCard,
    Layout,
    Licence,
    Outline,
    Polygons,
    Tiles,
    concepts_of,
)
from preprocessing.pairing import pair

CARD = DatasetCard(
    name="language",
    title="Language",
    modality="ct",
    licence=Licence("none"),
    citation="nobody",
    homepage="https://example.org",
    layout_checked="made here",
    layouts=(Layout(image=r"images/(?P<case>\w+)\.png", label=r"masks/(?P<case>[a-z]+\d)_(?P<part>\w+)\.png"),),
    labels=ByFile({"liver": "liver", "gb": "gallbladder"}),
)


@pytest.mark.parametrize(
    ("rule", "concepts"),
    [
        (Outline("fetal head"), ("fetal head",)),
        (ByFile({"l": "liver", "s": "spleen"}), ("liver", "spleen")),
        (ByChannel({0: "nucleus", 2: "gland"}, ignore=(1,)), ("nucleus", "gland")),
        (Polygons({"": "nucleus"}), ("nucleus",)),
        (Coco({"polyp": "polyp"}), ("polyp",)),
    ],
)
def test_a_rule_names_its_concepts_and_is_written_down_with_its_kind(rule, concepts) -> None:
    assert concepts_of(rule) == concepts
    said = replace(CARD, labels=Binary("organ"), layouts=(replace(CARD.layouts[0], labels=rule),)).resolved()
    assert said["concepts"] == sorted((*concepts, "organ"))
    kind = said["layouts"][0]["labels"]["kind"]
    assert RULES[kind] is type(rule)
    assert json.loads(json.dumps(said)) == said


def test_parts_are_known_by_their_file_in_lower_case() -> None:
    (case,) = pair(CARD, ["images/a1.png", "masks/a1_Liver.png", "masks/a1_GB.png"])
    assert case.labels == ("masks/a1_Liver.png", "masks/a1_GB.png")
    assert dict(case.parts) == {"masks/a1_Liver.png": "liver", "masks/a1_GB.png": "gb"}
    assert case.layout == CARD.layouts[0]


def test_an_array_file_may_hold_image_and_label() -> None:
    card = replace(CARD, layouts=(Layout(image=r"(?P<case>\w+)\.npz", image_key="imgs", label_key="gts"),))
    (case,) = pair(card, ["a.npz"])
    assert (case.images, case.labels, case.files) == (("a.npz",), ("a.npz",), ("a.npz",))


def test_a_coco_file_is_a_label_of_every_image_of_its_set() -> None:
    layout = Layout(
        image=r"(?P<case>(?P<set>\w+/(?P<split>\w+))/images/\d+)\.png", label=r"(?P<set>\w+/\w+)/annotations/\w+\.json"
    )
    card = replace(CARD, labels=Coco({"26": "stenosis"}), layouts=(layout,), official_split={"val": "val"})
    files = ["x/train/images/1.png", "x/train/images/2.png", "x/val/images/1.png", "x/val/annotations/val.json"]
    cases = pair(card, [*files, "x/train/annotations/train.json", "y/test/annotations/test.json"])
    assert [(case.case_id, case.labels, case.split) for case in cases] == [
        ("x_train_images_1", ("x/train/annotations/train.json",), ""),
        ("x_train_images_2", ("x/train/annotations/train.json",), ""),
        ("x_val_images_1", ("x/val/annotations/val.json",), "val"),
        ("y_test_annotations_test.json", ("y/test/annotations/test.json",), ""),
    ]


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: Layout(image="a", axes="zz"),
        lambda: Layout(image="a", label_axes="zc"),
        lambda: Layout(image="a", geometry_keys={"size": "s"}),
        lambda: Tiles(size_px=0),
        lambda: Tiles(mpp=-0.5),
    ],
)
def test_nonsense_is_refused_where_it_is_written(wrong) -> None:
    with pytest.raises(UsageError):
        wrong()
