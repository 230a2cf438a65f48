"""Looking things up in `evaluation.json` (docs/architecture.md, "training → registry: evaluation/")."""

from __future__ import annotations

from typing import Any

from registry.report.words import interval

BEFORE, AFTER, CHAMPION = "before", "after", "champion"
Interval = tuple[float, float]


class Intervals:
    """The 95 % intervals of `aggregates`, by what they are of."""

    def __init__(self, figures: dict[str, Any]) -> None:
        self._found = {
            _key(
                one["level"],
                one.get("name"),
                one.get("external"),
                one.get("metric"),
                one.get("prompt"),
                one.get("model"),
            ): one
            for one in figures.get("aggregates") or []
        }

    def entry(
        self, level: str, name: str, *, external: bool, metric: str = "dice", prompt: str = "text", model: str = AFTER
    ) -> dict[str, Any]:
        """The aggregate `{"value", "interval", "groups", "pairs", …}`; empty where there is none."""
        return self._found.get(_key(level, name, external, metric, prompt, model)) or {}

    def of(
        self, level: str, name: str, *, external: bool, metric: str = "dice", prompt: str = "text", model: str = AFTER
    ) -> Interval | None:
        """The interval of an aggregate; None where there is none."""
        return interval(
            self.entry(level, name, external=external, metric=metric, prompt=prompt, model=model).get("interval")
        )

    def names(self, level: str, *, external: bool) -> list[str]:
        """Names of a level, in alphabetical order."""
        return sorted({key[1] for key in self._found if key[0] == level and key[2] is external}, key=str.lower)


def interval_of(entry: dict[str, Any], figure: str) -> Interval | None:
    """`FIGURE_interval`, which stands beside a figure; None where there is none."""
    return interval(entry.get(f"{figure}_interval"))


def _key(level: Any, name: Any, external: Any, metric: Any, prompt: Any, model: Any) -> tuple[Any, ...]:
    return str(level), str(name or ""), bool(external), str(metric), str(prompt), str(model)
