"""The ontology: every card's concepts are in it, no text means two things, and unions mean what they say."""

from __future__ import annotations

import numpy as np
import pytest

from infra.errors import DataError
from preprocessing import ontology
from preprocessing.cards import all_cards
from preprocessing.harmonize.slices import objects_of
from preprocessing.harmonize.unions import extend
from preprocessing.schema import rle

# Verhoeff's dihedral check, which ends every SNOMED CT identifier (SNOMED CT Release File Specification, 5.5).
_DIHEDRAL = [[0] * 10 for _ in range(10)]
for _left in range(10):
    for _right in range(10):
        turned = (_left + _right) % 5 if _left < 5 else (_left - _right) % 5
        _DIHEDRAL[_left][_right] = turned + (5 if (_left < 5) != (_right < 5) else 0)
_PERMUTED = [list(range(10)), [1, 5, 7, 6, 2, 8, 3, 0, 9, 4]]
for _ in range(6):
    _PERMUTED.append([_PERMUTED[-1][_PERMUTED[1][digit]] for digit in range(10)])


def _checks(code: str) -> bool:
    state = 0
    for place, digit in enumerate(reversed(code)):
        state = _DIHEDRAL[state][_PERMUTED[place % 8][int(digit)]]
    return state == 0


def test_the_file_is_sound_and_every_text_is_plain() -> None:
    concepts = ontology.load()
    for name in concepts:
        for text in ontology.prompts(name):
            assert text == text.lower().strip()
            assert len(text.split()) <= 8
        assert len(set(ontology.prompts(name))) == len(ontology.prompts(name))


def test_the_snomed_codes_end_in_their_check_digit() -> None:
    assert _checks("10200004")
    assert not _checks("10200014")
    codes = [entry["snomed"] for entry in ontology.load().values() if entry.get("snomed")]
    assert len(codes) > 100
    assert all(_checks(code) for code in codes)


def test_every_card_speaks_of_known_concepts_and_its_unions_are_complete() -> None:
    for card in all_cards().values():
        for concept in card.concepts:
            assert ontology.describe(concept, card.modality)["prompts"][0] == concept
        for union in card.unions:
            parts, _ = ontology.parts_of(union)
            missing = set(parts) - set(card.concepts)
            assert not missing, f"{card.name}: {union} would lack {missing}"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: {synonyms: [c]}\nb: {synonyms: [c]}\n", "'c' stands for both 'a' and 'b'"),
        ("a: {plural: b}\nb: {}\n", "'b' stands for both 'a' and 'b'"),
        ("a: {parent: b}\n", "'a' names 'b', which is no concept"),
        ("a: {parts: [b]}\n", "'a' names 'b', which is no concept"),
        ("a: {parent: b}\nb: {parent: a}\n", "circle of parent"),
        ("a: {parts: [b, c]}\nb: {}\nc: {parts: [a]}\n", "circle of parts"),
        ("a: {synonmys: [b]}\n", "unknown key 'synonmys'"),
    ],
)
def test_a_damaged_file_is_refused(tmp_path: object, monkeypatch: pytest.MonkeyPatch, text: str, said: str) -> None:
    from pathlib import Path

    file = Path(str(tmp_path)) / "ontology.yaml"
    file.write_text(text, encoding="utf-8")
    monkeypatch.setattr(ontology, "FILE", file)
    with pytest.raises(DataError, match=said):
        ontology.load.__wrapped__()


def test_wording_of_a_modality_is_no_prompt_of_another() -> None:
    ultrasound, ct = ontology.describe("kidney", "ultrasound"), ontology.describe("kidney", "CT")
    assert ultrasound["prompts"] == ct["prompts"]
    assert ultrasound["wording"] == ["kidney outline"]
    assert "wording" not in ct
    assert ontology.describe("left kidney")["snomed_laterality"] == "7771000"


def _object(concept: str, *places: tuple[int, int]) -> list[dict[str, object]]:
    parts = []
    for place in places:
        mask = np.zeros((4, 6), dtype=bool)
        mask[place] = True
        parts.append(mask)
    return objects_of(concept, parts)


def test_two_kidneys_are_two_objects_of_the_kidney() -> None:
    objects = [*_object("left kidney", (0, 0)), *_object("right kidney", (3, 5))]
    found, absent = extend(objects, ["spleen"], ("kidney",), (4, 6))
    assert [(item["concept"], item["instance"], item["rle"]) for item in found[2:]] == [
        ("kidney", 1, objects[0]["rle"]),
        ("kidney", 2, objects[1]["rle"]),
    ]
    assert absent == ["spleen"]


def test_lobes_make_one_lung_and_two_lungs_make_the_lungs() -> None:
    objects = [*_object("left upper lung lobe", (0, 0), (1, 0)), *_object("left lower lung lobe", (3, 5))]
    others = ["right upper lung lobe", "right middle lung lobe", "right lower lung lobe"]
    found, absent = extend(objects, others, ("lung", "left lung", "right lung"), (4, 6))
    assert [(item["concept"], item["area"]) for item in found[3:]] == [("left lung", 3), ("lung", 3)]
    assert rle.decode(str(found[3]["rle"]), 4, 6).sum() == 3
    assert absent == sorted([*others, "right lung"])


def test_a_union_is_absent_only_where_all_its_parts_are() -> None:
    assert extend([], ["left kidney", "right kidney"], ("kidney",), (4, 6))[1] == [
        "kidney",
        "left kidney",
        "right kidney",
    ]
    assert extend([], ["left kidney"], ("kidney",), (4, 6)) == ([], ["left kidney"])
