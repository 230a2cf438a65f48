"""Numbers as people read them: what was not measured is a dash, never a nought."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from typing import Any

DASH = "–"
_LONGEST_RUN = 24


def number(value: Any) -> float | None:
    """A finite number, else None: what was not measured is shown as such."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        return None
    return float(value)


def interval(value: Any) -> tuple[float, float] | None:
    """Both ends of an interval `[low, high]`; None where one of them was not measured."""
    if not isinstance(value, Sequence) or isinstance(value, str) or len(value) != 2:
        return None
    low, high = number(value[0]), number(value[1])
    return None if low is None or high is None else (min(low, high), max(low, high))


def figure(value: Any, digits: int = 2) -> str:
    """A figure with two digits."""
    found = number(value)
    return DASH if found is None else f"{round(found, digits) or 0:.{digits}f}".replace("-", "−")


def signed(value: Any, digits: int = 2) -> str:
    """A difference with its sign."""
    found = number(value)
    if found is None:
        return DASH
    return f"{found:+.{digits}f}".replace("-", "−") if round(found, digits) else f"{0:.{digits}f}"


def between(value: Any, how: str = "figure") -> str:
    """An interval as "0.41 to 0.58"; nothing where there is none."""
    found = interval(value)
    return "" if found is None else f"{as_shown(found[0], how)} to {as_shown(found[1], how)}"


def percent(value: Any) -> str:
    """A share of one as a percentage; a small one keeps a digit."""
    found = number(value)
    if found is None:
        return DASH
    digits = 0 if found == 0 or found >= 0.0995 else 1
    return f"{100 * found:.{digits}f}\N{NO-BREAK SPACE}%"


def millimetres(value: Any) -> str:
    """A distance in millimetres with one digit."""
    return figure(value, 1)


def as_shown(value: Any, how: str) -> str:
    """A value by the name of the filter that shows it."""
    return FILTERS[how](value)


def count(value: Any) -> str:
    """A whole number with commas."""
    found = number(value)
    return DASH if found is None else f"{found:,.0f}"


def breakable(name: Any) -> str:
    """A name as markup that may break after `_`, `-`, `/` and `.`, and in a long run without any of them.

    The text stays the same, so that it can be searched and copied.
    """
    from markupsafe import Markup, escape

    parts = re.findall(rf"[^_\-/.]{{1,{_LONGEST_RUN}}}[_\-/.]*|[_\-/.]+", str(name), flags=re.DOTALL)
    return Markup("<wbr>").join(escape(part) for part in parts)


def plain(value: Any) -> str:
    """A figure of the gate, or what stands in its place."""
    found = number(value)
    return DASH if value is None else str(value) if found is None else f"{found:.3f}"


def duration(seconds: float) -> str:
    """Seconds as a person says them."""
    if seconds < 1:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


FILTERS: dict[str, Callable[..., str]] = {
    "figure": figure,
    "signed": signed,
    "millimetres": millimetres,
    "as_shown": as_shown,
    "between": between,
    "breakable": breakable,
    "percent": percent,
    "count": count,
    "duration": duration,
}
