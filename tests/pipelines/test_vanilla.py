"""The table of vanilla against tuned: what the evaluation says, internal and external apart, in one section."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from infra.errors import UsageError
from pipelines.bench.vanilla import kept_section, section, with_section


def evaluation() -> dict[str, Any]:
    def pair(level: str, name: str, external: bool, after: float, interval: list[float] | None) -> dict[str, Any]:
        return {"against": "start", "level": level, "name": name, "external": external, "metric": "dice_text",
                "before": 0.1, "after": after, "difference": after - 0.1, "interval": interval, "groups": 3,
                "pairs": 9}  # fmt: skip

    top = {"level": "dataset", "name": "A", "external": False, "model": "after", "prompt": "text",
           "metric": "dice_top1", "value": 0.42}  # fmt: skip
    pairs = [pair("all", "", False, 0.6, [0.3, 0.7]), pair("dataset", "A", False, 0.6, [0.3, 0.7]),
             pair("concept", "polyp", False, 0.6, None), pair("dataset", "E", True, 0.05, None)]  # fmt: skip
    return {"split": "test", "paired": pairs, "aggregates": [top]}


def test_internal_and_external_sets_stand_apart() -> None:
    inside, _, outside = section(evaluation()).partition("### External sets")
    assert "| A | 0.100 | 0.600 | +0.500 (+0.300 to +0.700) |  | 0.420 | 3 | 9 |" in inside
    assert "| **mean over datasets** | 0.100 | 0.600 |" in inside
    assert "| E | 0.100 | 0.050 | -0.050 |" in outside
    assert "polyp" not in inside + outside
    with pytest.raises(UsageError, match="against the start"):
        section({**evaluation(), "paired": []})


def test_the_section_is_replaced_and_kept(tmp_path: Path) -> None:
    once = with_section("# Results\n\ntable\n", section(evaluation()))
    assert with_section(once, section(evaluation())) == once
    assert once.startswith("# Results\n\ntable\n\n## Vanilla against tuned\n")
    page = tmp_path / "results.md"
    page.write_text(once)
    assert "# New\n" + kept_section(page) == once.replace("# Results\n\ntable", "# New")
    assert kept_section(tmp_path / "none.md") == ""
