"""How logits become a mask: thresholds chosen on the validation split, never on test."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from training.calibration import platt

MASK_THRESHOLDS = (0.3, 0.4, 0.5, 0.6, 0.7)
PRESENCE_THRESHOLDS = tuple(step / 20 for step in range(19))  # 0 to 0.9


@dataclass(frozen=True)
class Decision:
    """How logits become a mask; chosen on the validation split and kept in `config.json`."""

    mask_threshold: float = 0.5  # on the semantic map's probability
    presence_threshold: float = 0.0  # below it the concept is called absent and its mask is empty
    instance_threshold: float = 0.5  # on query score x presence
    presence_scale: float = 1.0  # of the presence logit, then `presence_shift` is added: its calibration
    presence_shift: float = 0.0


def choose_decision(rows: list[dict[str, Any]], *, calibrate: bool = False) -> Decision:
    """Thresholds that do best on the validation split, as the mean over datasets.

    With `calibrate`, the presence logit is first calibrated on the same split, each dataset counted alike.

    First the mask threshold by Dice on present concepts; then the presence threshold by the same Dice
    with absent concepts counted too: 1 where the model says absent, 0 where it does not.
    """
    if not any(row["present"] for row in rows):
        return Decision()
    decision = _calibrated(rows) if calibrate else Decision()
    presences = [_presence(row, decision) for row in rows]
    by_threshold = [
        _mean_over_datasets([(row["dataset"], row["dice"][index]) for row in rows if row["present"]])
        for index in range(len(MASK_THRESHOLDS))
    ]
    best = int(np.argmax(by_threshold))
    by_presence = [
        _mean_over_datasets(
            [
                (
                    row["dataset"],
                    (row["dice"][best] if presence >= least else 0.0) if row["present"] else float(presence < least),
                )
                for row, presence in zip(rows, presences, strict=True)
            ]
        )
        for least in PRESENCE_THRESHOLDS
    ]
    return replace(
        decision,
        mask_threshold=MASK_THRESHOLDS[best],
        presence_threshold=PRESENCE_THRESHOLDS[int(np.argmax(by_presence))],
    )


def _calibrated(rows: list[dict[str, Any]]) -> Decision:
    counts = Counter(row["dataset"] for row in rows)
    scale, shift = platt(
        [row["presence_logit"] for row in rows],
        [row["present"] for row in rows],
        [1 / counts[row["dataset"]] for row in rows],
    )
    return replace(Decision(), presence_scale=scale, presence_shift=shift)


def _presence(row: dict[str, Any], decision: Decision) -> float:
    if decision.presence_scale == 1 and decision.presence_shift == 0:
        return float(row["presence"])
    return float(1 / (1 + np.exp(-(decision.presence_scale * row["presence_logit"] + decision.presence_shift))))


def decision_record(decision: Decision) -> dict[str, float]:
    """What `config.json` keeps of a decision."""
    return asdict(decision)


def _mean_over_datasets(values: list[tuple[str, float]]) -> float:
    datasets: dict[str, list[float]] = {}
    for dataset, value in values:
        datasets.setdefault(dataset, []).append(value)
    return float(np.mean([np.mean(part) for part in datasets.values()]))
