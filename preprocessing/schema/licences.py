"""What a licence allows, and which of several is the strictest: over the `licence` of a `dataset.json`.

A model made from several datasets is bound by all of their terms, and by the strictest most. The order,
from free to strict, and the number that stands for it:

     0 public domain (CC0, PDDL)          38 no derivatives (BY-ND)
    10 permissive (MIT, Apache, BSD)      42 non-commercial (BY-NC)
    20 attribution (BY, ODC-By)           44 non-commercial, share alike (BY-NC-SA)
    30 share alike (BY-SA)                46 non-commercial, no derivatives (BY-NC-ND)
    34 copyleft of software (GPL, AGPL)   50 research, challenge or own terms
                                          55 unknown or not stated
                                          60 no redistribution, restricted, data use agreement

A name is matched by the strictest pattern found in it, so that "CC BY-NC-SA" is not taken for "CC BY"; a
name that no pattern matches is unknown. What the card answers can only make it stricter: commercial use
"no" is at least 42, redistribution "no" at least 60. Of equally strict ones the last by name is named, so
that the answer does not depend on the order of datasets.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

LIMITS = ("any", "commercial", "redistribution")
USES = LIMITS[1:]

_STRICTNESS: tuple[tuple[str, int], ...] = (
    (r"no.?redistribution|restricted|data use agreement|\bDUA\b", 60),
    (r"unknown|unstated|not stated|\bnone\b", 55),
    (r"research|challenge|terms|SAM License", 50),
    (r"BY-NC-ND", 46),
    (r"BY-NC-SA", 44),
    (r"BY-NC|non.?commercial", 42),
    (r"BY-ND", 38),
    (r"A?GPL", 34),
    (r"BY-SA|share.?alike", 30),
    (r"BY\b|ODC-By", 20),
    (r"MIT|Apache|BSD", 10),
    (r"CC0|public.?domain|PDDL|Unlicense", 0),
)
_UNKNOWN = 55
_ORDER = {"yes": 0, "unknown": 1, "no": 2}


def licence_name(licence: dict[str, Any] | None) -> str:
    """The name of a card's licence: its SPDX identifier, else its terms, else "unknown"."""
    if not licence:
        return "unknown"
    return str(licence.get("spdx") or licence.get("terms") or "unknown")


def answer(licence: dict[str, Any] | None, use: str) -> str:
    """ "yes", "no" or "unknown": whether `use` ("commercial" or "redistribution") is allowed."""
    said = (licence or {}).get(use, "unknown")
    said = {True: "yes", False: "no"}.get(said, said) if isinstance(said, bool) else str(said)
    return said if said in _ORDER else "unknown"


def licence_strictness(licence: dict[str, Any] | None) -> int:
    """How much a licence forbids, 0 (public domain) to 60; what is not understood counts as unknown."""
    text = licence_name(licence).replace("_", "-").replace(" BY", "-BY")
    levels = (level for pattern, level in _STRICTNESS if re.search(pattern, text, flags=re.IGNORECASE))
    level = next(levels, _UNKNOWN)
    if answer(licence, "redistribution") == "no":
        level = max(level, 60)
    if answer(licence, "commercial") == "no":
        level = max(level, 42)
    return level


def strictest_licence(datasets: Iterable[dict[str, Any]]) -> str:
    """The name of the strictest licence among `dataset.json` contents; "unknown" where there is none."""
    ranked = sorted(
        ((licence_strictness(one.get("licence")), licence_name(one.get("licence"))) for one in datasets), reverse=True
    )
    return ranked[0][1] if ranked else "unknown"


def model_licence(datasets: Iterable[dict[str, Any]]) -> dict[str, str]:
    """What binds a model made from these: {"strictest", "commercial", "redistribution"}.

    A use is "yes" only where every dataset says yes, and "no" where one says no.
    """
    made_from = list(datasets)
    found = {"strictest": strictest_licence(made_from)}
    for use in USES:
        answers = [answer(one.get("licence"), use) for one in made_from] or ["unknown"]
        found[use] = max(answers, key=_ORDER.__getitem__)
    return found


def why_left_out(licence: dict[str, Any] | None, limit: str, said_by: str = "its card says") -> str | None:
    """Why what is under `licence` does not belong in a build limited to `limit`, or None where it does."""
    if limit not in LIMITS:
        msg = f"licence limit: expected one of {', '.join(LIMITS)}, found {limit!r}"
        raise ValueError(msg)
    if limit == "any" or answer(licence, limit) == "yes":
        return None
    use = {"commercial": "commercial use", "redistribution": "redistribution"}[limit]
    return f"{use}: expected yes, {said_by} {answer(licence, limit)} ({licence_name(licence)})"
