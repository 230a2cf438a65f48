"""Why an answer is wrong, in one word: the first reason that fits."""

from __future__ import annotations

GOOD = 0.5
"""Dice from which an answer is no failure."""
REASONS = {
    "missed": "nothing is marked where the concept is there",
    "elsewhere": "what is marked shares no pixel with the truth",
    "too_large": "more than twice the truth's pixels are marked",
    "too_small": "less than half of the truth's pixels are marked",
    "imprecise": "about the right size, and a Dice below 0.5",
    "false_alarm": "something is marked where the concept was searched for and is not",
}


def failure_of(present: bool, dice: float, truth_px: int, predicted_px: int) -> str | None:
    """A key of `REASONS`, or None where the answer is good enough."""
    if not present:
        return "false_alarm" if predicted_px else None
    if dice >= GOOD:
        return None
    if not predicted_px:
        return "missed"
    if dice == 0:
        return "elsewhere"
    if predicted_px > 2 * truth_px:
        return "too_large"
    return "too_small" if 2 * predicted_px < truth_px else "imprecise"
