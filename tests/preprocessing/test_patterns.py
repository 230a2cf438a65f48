"""What `images/{case}.png` takes and what it leaves."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from preprocessing.patterns import PatternError, ahead, translate


def fields(pattern: str, path: str) -> dict[str, str] | None:
    match = re.fullmatch(translate(pattern).expression, path)
    return match.groupdict() if match else None


@pytest.mark.parametrize(
    ("pattern", "path", "found"),
    [
        ("images/{case}.png", "images/a b (1).png", {"case": "a b (1)"}),
        ("images/{case}.png", "images/deep/a.png", None),
        ("images/{case}.png", "images/.png", None),
        ("images/{case}.png", "images/a.PNG", None),
        ("images/{case}.png", "images/aXpng", None),
        ("{case}.{png,jpg}", "a.jpg", {"case": "a"}),
        ("{case}.{png,jpg}", "a.gif", None),
        ("**/{case}.nii.gz", "a.nii.gz", {"case": "a"}),
        ("**/{case}.nii.gz", "x/y/a.nii.gz", {"case": "a"}),
        ("raw/**", "raw/x/y.txt", {}),
        ("{case}/{case}_seg.nii", "p1/p1_seg.nii", {"case": "p1"}),
        ("{case}/{case}_seg.nii", "p1/p2_seg.nii", None),
        ("{split:train,test}/{case}.png", "test/a.png", {"split": "test", "case": "a"}),
        ("{split:train,test}/{case}.png", "val/a.png", None),
        ("{within=part 1}/{case}.png", "part 1/a.png", {"within": "part 1", "case": "a"}),
        ("{within=part 1}/{case}.png", "part 2/a.png", None),
        ("p{group:digits}_{case}.png", "p12_3.png", {"group": "12", "case": "3"}),
        ("p{group:digits}_{case}.png", "pX_3.png", None),
        ("{case:path}.png", "a/b/c.png", {"case": "a/b/c"}),
        ("{case}_?.png", "a_b_1.png", {"case": "a_b"}),
        ("[1]{case}+.png", "[1]a+.png", {"case": "a"}),
    ],
)
def test_a_pattern_takes_what_the_page_says(pattern: str, path: str, found: dict[str, str] | None) -> None:
    assert fields(pattern, path) == found


@given(st.text(st.characters(exclude_characters="/", exclude_categories=["Cs", "Cc"]), min_size=1))
def test_a_field_gives_back_the_name_that_was_put_in(name: str) -> None:
    assert fields("images/{case}_mask.png", f"images/{name}_mask.png") == {"case": name}


@pytest.mark.parametrize(
    ("pattern", "words"),
    [
        ("../{case}.png", "without ./, ../"),
        ("a/../{case}.png", "without ./, ../"),
        ("/data/{case}.png", "absolute"),
        ("C:/data/{case}.png", "absolute"),
        ("~/x/{case}.png", "absolute"),
        (r"images\{case}.png", "backslash"),
        (r"images/(?P<case>.+)\.png", "regex:"),
        (r"images/\d+.png", "regex:"),
        ("{case}{group}.png", "two fields"),
        ("{case", "braces in pairs"),
        ("{ca se}.png", "a field such as"),
        ("{case:number}.png", "{case:digits}"),
        ("{case:}.png", "{case:digits}"),
        ("{case=}.png", "a field such as"),
        (" {case}.png", "spaces"),
        ("", "a path below"),
    ],
)
def test_a_pattern_that_means_nothing_says_what_would(pattern: str, words: str) -> None:
    with pytest.raises(PatternError, match=re.escape(words)):
        translate(pattern)


def test_of_two_patterns_in_one_folder_the_one_that_says_more_takes_the_file() -> None:
    image, mask = translate("{case}.png"), translate("{case}_mask.png")
    both = ahead(image, mask, "x_") + image.expression
    assert re.fullmatch(both, "a.png")
    assert not re.fullmatch(both, "a_mask.png")
    assert ahead(mask, image, "x_") == ""
    assert ahead(translate("images/{case}.png"), translate("masks/{case}_mask.png"), "x_") == ""
