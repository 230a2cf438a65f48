"""Licences of several datasets together."""

from __future__ import annotations

from typing import Any

import pytest

from preprocessing.schema.licences import LIMITS, licence_strictness, model_licence, why_left_out

RISING: list[dict[str, Any]] = [
    {"spdx": "CC0-1.0"},
    {"spdx": "Apache-2.0"},
    {"spdx": "CC-BY-4.0"},
    {"spdx": "CC-BY-SA-4.0"},
    {"spdx": "GPL-3.0-only"},
    {"spdx": "CC-BY-ND-4.0"},
    {"spdx": "CC-BY-NC-4.0"},
    {"spdx": "CC-BY-NC-SA-4.0"},
    {"terms": "CC BY-NC-ND 4.0"},
    {"terms": "research and educational use, citation required"},
    {"terms": "unknown"},
    {"terms": "data use agreement of the hospital"},
]


def test_the_order_is_the_one_stated() -> None:
    levels = [licence_strictness(one) for one in RISING]
    assert levels == sorted(set(levels))


def test_what_a_card_answers_can_only_make_it_stricter() -> None:
    free = {"spdx": "CC0-1.0", "commercial": "yes", "redistribution": "yes"}
    assert licence_strictness(free) == 0
    assert licence_strictness({**free, "commercial": "no"}) == licence_strictness({"spdx": "CC-BY-NC-4.0"})
    assert licence_strictness({**free, "redistribution": "no"}) == 60
    assert licence_strictness({"terms": "restricted", "commercial": "yes", "redistribution": "yes"}) == 60


def test_a_model_may_do_what_all_its_datasets_allow() -> None:
    free = {"licence": {"spdx": "CC-BY-4.0", "commercial": "yes", "redistribution": "yes"}}
    research = {"licence": {"terms": "research only", "commercial": "no", "redistribution": "unknown"}}
    assert model_licence([free]) == {"strictest": "CC-BY-4.0", "commercial": "yes", "redistribution": "yes"}
    both = {"strictest": "research only", "commercial": "no", "redistribution": "unknown"}
    assert model_licence([free, research]) == model_licence([research, free]) == both
    assert model_licence([]) == {"strictest": "unknown", "commercial": "unknown", "redistribution": "unknown"}
    assert model_licence([free, {}])["commercial"] == "unknown"


def test_a_limit_wants_a_yes() -> None:
    for use in LIMITS[1:]:
        assert why_left_out({"terms": "x", use: "yes"}, use) is None
        for said in ("no", "unknown"):
            why = why_left_out({"terms": "x", use: said}, use)
            assert why is not None
            assert f"its card says {said} (x)" in why
    assert why_left_out(None, "any") is None
    assert why_left_out(None, "commercial") is not None
    with pytest.raises(ValueError, match="expected one of any, commercial, redistribution"):
        why_left_out({}, "both")
