"""docs/datasets.md says what the cards and the tests say."""

from __future__ import annotations

from pathlib import Path

from preprocessing.cards import all_cards, load_card
from preprocessing.dataset_table import REAL, family_of, proof_of, render
from tests.preprocessing.native.test_native import NATIVE
from tests.preprocessing.test_cards import MIRRORED

ROOT = Path(__file__).parents[2]


def test_the_page_is_what_make_docs_writes() -> None:
    assert (ROOT / "docs" / "datasets.md").read_text(encoding="utf-8") == render()


def test_every_card_is_tested_on_what_the_page_says() -> None:
    assert set(MIRRORED) == REAL
    trees = {name for name, card in all_cards().items() if proof_of(card) == "tree"}
    assert trees == {*NATIVE, "ARCADE", "PanNuke"}  # the two are in native/test_native_many.py


def test_layout_families_are_told_apart() -> None:
    said = {name: family_of(load_card(name)) for name in ("HC18", "ARCADE", "PAPILA", "DSB2018", "dcmqi", "KiTS23")}
    assert said == {
        "HC18": "pictures, outlines to fill",
        "ARCADE": "pictures, COCO",
        "PAPILA": "pictures, outlines as coordinates",
        "DSB2018": "pictures, a file an instance",
        "dcmqi": "DICOM, DICOM-SEG",
        "KiTS23": "volumes, value codes",
    }
