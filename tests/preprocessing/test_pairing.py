"""Case names: of any script, told apart, and the same on both sides of a pair."""

from __future__ import annotations

import unicodedata
from dataclasses import replace

from preprocessing.cards import Layout, load_card
from preprocessing.pairing import pair

CARD = replace(
    load_card("Kvasir-SEG"),
    layouts=(Layout(image=r"images/(?P<case>.+)\.png", label=r"masks/(?P<case>.+)\.png"),),
)


def _both(*names: str) -> list[str]:
    return [f"{folder}/{name}.png" for name in names for folder in ("images", "masks")]


def test_names_of_any_script_stay_apart_and_readable() -> None:
    cases = pair(CARD, _both("病人一", "病人二", "Größe 1"))
    assert [case.case_id for case in cases] == ["Größe_1", "病人一", "病人二"]
    assert all(len(case.images) == len(case.labels) == 1 for case in cases)


def test_an_accent_spelled_as_two_letters_is_the_same_name() -> None:
    two = unicodedata.normalize("NFD", "é1")
    assert two != "é1"
    (case,) = pair(CARD, ["images/é1.png", f"masks/{two}.png"])
    assert (case.images, case.labels) == (("images/é1.png",), (f"masks/{two}.png",))


def test_names_that_differ_in_a_sign_alone_are_cases_of_one_group() -> None:
    alone = pair(CARD, _both("a b"))
    cases = pair(CARD, _both("a b", "a_b", "😀", "🎉"))
    assert len({case.case_id for case in cases}) == 4
    assert {case.case_id.partition("-")[0] for case in cases} == {"a_b", ""}
    assert sorted(case.images[0] for case in cases) == [
        "images/a b.png",
        "images/a_b.png",
        "images/🎉.png",
        "images/😀.png",
    ]
    # the one that was there before keeps its group, and so its split
    assert [case.group for case in cases if case.case_id.startswith("a_b")] == [alone[0].group] * 2


def test_each_sequence_of_a_study_is_a_case_of_its_patient() -> None:
    layout = Layout(
        image=r"(?P<case>p\d)/(t1|t2)/[a-z]+\.nii",
        label=r"(?P<case>p\d)/seg\.nii",
        each_image=True,
    )
    files = [f"{who}/{what}.nii" for who in ("p1", "p2") for what in ("t1/scan", "t2/scan", "t2/other", "seg")]
    cases = pair(replace(CARD, layouts=(layout,)), [*files, "p3/t1/scan.nii", "p3/seg.nii"])
    assert len({case.case_id for case in cases}) == len(cases) == 7
    assert {case.group for case in cases} == {"p1", "p2", "p3"}
    assert sorted(case.images[0] for case in cases) == sorted({*files, "p3/t1/scan.nii"} - {"p1/seg.nii", "p2/seg.nii"})
    assert all(case.labels == (f"{case.group}/seg.nii",) for case in cases)
