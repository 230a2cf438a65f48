"""Thresholds are those that do best on the rows given, dataset by dataset."""

from __future__ import annotations

from training.decision import MASK_THRESHOLDS, PRESENCE_THRESHOLDS, Decision, choose_decision


def _row(dataset: str, presence: float, dice: list[float] | None) -> dict[str, object]:
    row: dict[str, object] = {"dataset": dataset, "present": dice is not None, "presence": presence}
    return row if dice is None else {**row, "dice": dice}


def test_the_mask_threshold_with_the_best_mean_over_datasets_wins_whatever_their_sizes() -> None:
    best_at_first = [0.9, 0.2, 0.2, 0.2, 0.2]
    best_at_last = [0.1, 0.2, 0.2, 0.2, 0.95]
    rows = [_row("large", 0.9, best_at_first) for _ in range(50)] + [_row("small", 0.9, best_at_last)]
    assert choose_decision(rows).mask_threshold == MASK_THRESHOLDS[4]


def test_the_presence_threshold_parts_present_from_absent() -> None:
    dice = [0.8] * len(MASK_THRESHOLDS)
    rows = [_row("one", 0.62, dice), _row("one", 0.33, None), _row("two", 0.7, dice), _row("two", 0.1, None)]
    chosen = choose_decision(rows).presence_threshold
    assert chosen in PRESENCE_THRESHOLDS
    assert 0.33 < chosen <= 0.62


def test_without_anything_present_the_defaults_stay() -> None:
    assert choose_decision([_row("one", 0.4, None)]) == Decision()
