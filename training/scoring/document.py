"""The parts of evaluation.json beside means of Dice: surfaces, instances, presence, synonyms, failures."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

from infra.statistics import Statistic, Values, interval, mean_replicates, over_strata, replicates, whole
from training.scoring import instances as sets
from training.scoring import presence as ranks

Row = Mapping[str, Any]


def _models(rows: Sequence[Row]) -> list[str]:
    return sorted({row["model"] for row in rows})


def _figure(rows: Sequence[Row], metric: str, name: str) -> dict[str, Any]:
    values = [row[metric] for row in rows]
    if not values:
        return {metric: None, f"{metric}_interval": None}
    draws = mean_replicates([row["group_id"] for row in rows], values, name)
    return {metric: float(np.mean(values)), f"{metric}_interval": interval(draws)}


def surface_figures(
    rows: Sequence[Row], refused: Mapping[str, Sequence[tuple[str, str]]], external: Collection[str], tolerance: float
) -> dict[str, Any]:
    """`surface` of evaluation.json from rows of volumes, and the volumes of each dataset that were not measured."""

    def figures(part: Sequence[Row], name: str) -> dict[str, Any]:
        there = [row for row in part if row["present"]]
        found: dict[str, Any] = {}
        for metric in ("dice", "nsd", "hd95_mm"):
            found |= _figure(there, metric, name)
        missed = sum(not row["predicted_voxels"] for row in there)
        return {**found, "missed": missed, "pairs": len(there), "groups": len({row["group_id"] for row in there})}

    document: dict[str, Any] = {}
    for name in sorted({row["dataset"] for row in rows} | set(refused)):
        own = [row for row in rows if row["dataset"] == name]
        document[name] = {
            "external": name in external,
            "tolerance_mm": tolerance,
            "volumes": len({row["case_id"] for row in own}),
            "not_measured": dict(sorted(Counter(reason for _, reason in set(refused.get(name, ()))).items())),
            "models": {model: figures([row for row in own if row["model"] == model], name) for model in _models(own)},
            "concepts": {
                concept: {
                    model: figures([row for row in own if (row["model"], row["concept"]) == (model, concept)], name)
                    for model in _models(own)
                }
                for concept in sorted({row["concept"] for row in own})
            },
        }
    return document


def instance_figures(found: Sequence[Row], external: Collection[str]) -> dict[str, Any]:
    """`instances` of evaluation.json from matchings (`training.evaluate.Found.instances`)."""
    cells: dict[tuple[str, str, str], list[Row]] = defaultdict(list)
    for one in sorted(found, key=lambda row: row["sample_id"]):
        cells[one["dataset"], one["concept"], one["model"]].append(one)
    document: dict[str, Any] = {}
    for (dataset, concept, model), part in sorted(cells.items()):
        matchings = [one["matching"] for one in part]
        groups = [one["group_id"] for one in part]
        figures: dict[str, Any] = {}
        statistics: dict[str, Statistic] = {
            "f1": sets.f1(matchings),
            "pq": sets.panoptic_quality(matchings),
            "ap": sets.average_precision(matchings),
            "ap50": sets.average_precision(matchings, sets.IOUS[:1]),
        }
        predictions = sum(len(one.scores) for one in matchings)
        for name, statistic in statistics.items():
            figures[name] = whole(statistic, len(part))
            figures[f"{name}_interval"] = interval(replicates(groups, statistic, dataset, predictions))
        for name in ("truth", "predicted", "matched"):
            figures[name] = sum(getattr(one, name) for one in matchings)
        entry = document.setdefault(dataset, {"external": dataset in external, "concepts": {}})
        entry["concepts"].setdefault(concept, {})[model] = {
            **figures,
            "samples": len(part),
            "groups": len(set(groups)),
        }
    return document


def presence_figures(rows: Sequence[Row], external: Collection[str]) -> dict[str, Any]:
    """`presence` of evaluation.json: text prompts, each dataset by itself and the mean over datasets."""
    text = [row for row in rows if row["prompt"] == "text"]
    datasets: dict[str, dict[str, Any]] = defaultdict(dict)
    drawn: dict[tuple[str, str], dict[str, tuple[float, Values]]] = {}
    for name in sorted({row["dataset"] for row in text}):
        for model in _models(text):
            own = [row for row in text if (row["dataset"], row["model"]) == (name, model)]
            if own:
                datasets[name][model], drawn[name, model] = _presence(own, name)
    inside, outside = ([name for name in datasets if (name in external) is side] for side in (False, True))
    models = {model: _mean_presence(inside, model, datasets, drawn) for model in _models(text)}
    empty = _mean_presence([], "after", datasets, drawn)
    return {
        **models.get("after", empty),
        "models": models,
        "external": {model: _mean_presence(outside, model, datasets, drawn) for model in _models(text)}
        if outside
        else {},
        "datasets": dict(datasets),
    }


_PRESENCE = ("auroc", "false_alarm_rate", "ece")


def _presence(rows: Sequence[Row], name: str) -> tuple[dict[str, Any], dict[str, tuple[float, Values]]]:
    said, there = [row["presence"] for row in rows], [row["present"] for row in rows]
    absent = [not one for one in there]
    # where all is there, or nothing is known to be absent, being sure says nothing about calibration
    both = any(there) and any(absent)
    # an answer that is no number marks nothing, which is no proof that it raises no false alarm
    marked = [row["predicted_px"] > 0 if math.isfinite(row["presence"]) else math.nan for row in rows]
    statistics: dict[str, Statistic] = {
        "auroc": ranks.auroc(said, there),
        "false_alarm_rate": ranks.share(marked, absent),
        "ece": ranks.calibration_error(said, there),
    }
    groups = [row["group_id"] for row in rows]
    figures: dict[str, Any] = {}
    draws: dict[str, tuple[float, Values]] = {}
    for metric, statistic in statistics.items():
        measured = any(absent) if metric == "false_alarm_rate" else both
        figures[metric], figures[f"{metric}_interval"] = None, None
        if measured:  # NaN for answers that are no numbers: then the mean over datasets is none either
            value = float(statistic(np.ones((1, len(rows))))[0])
            figures[metric] = value
            draws[metric] = (value, replicates(groups, statistic, name))
            figures[f"{metric}_interval"] = interval(draws[metric][1])
    counts = {"present_pairs": sum(there), "absent_pairs": sum(absent), "groups": len(set(groups))}
    return {**figures, **counts}, draws


def _mean_presence(
    names: Sequence[str],
    model: str,
    datasets: Mapping[str, Mapping[str, Any]],
    drawn: Mapping[tuple[str, str], Mapping[str, tuple[float, Values]]],
) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for metric in _PRESENCE:
        parts = [drawn[name, model][metric] for name in names if metric in drawn.get((name, model), {})]
        found[metric] = float(np.mean([value for value, _ in parts])) if parts else None
        found[f"{metric}_interval"] = interval(over_strata(parts))
    own = [datasets[name][model] for name in names if model in datasets[name]]
    return {**found, **{key: sum(one[key] for one in own) for key in ("present_pairs", "absent_pairs", "groups")}}


def synonym_figures(rows: Sequence[Row], external: Collection[str]) -> dict[str, Any] | None:
    """`synonyms` of evaluation.json: Dice of "after" over the wordings of present pairs; None where none was asked.

    The spread of a pair is the best wording's Dice less the worst's, the canonical one among them.
    """
    asked = [row for row in rows if row["model"] == "after" and row["present"]]
    canonical = {(row["sample_id"], row["concept"]): row for row in asked if row["prompt"] == "text"}
    words: dict[tuple[str, str], list[float]] = defaultdict(list)
    for row in asked:
        if row["prompt"] == "synonym":
            words[row["sample_id"], row["concept"]].append(row["dice"])
    if not words:
        return None
    parts: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for key, dices in sorted(words.items()):
        base = canonical[key]
        every = [base["dice"], *dices]
        parts[base["dataset"]].append(
            {
                "group_id": base["group_id"],
                "wordings": len(every),
                "dice_canonical": base["dice"],
                "dice_synonyms": float(np.mean(dices)),
                "dice_worst": min(every),
                "spread": max(every) - min(every),
            }
        )

    def figures(names: Sequence[str]) -> dict[str, Any]:
        chosen = [parts[name] for name in names]
        found: dict[str, Any] = {
            "pairs": sum(map(len, chosen)),
            "wordings": sum(p["wordings"] for c in chosen for p in c),
        }
        for metric in ("dice_canonical", "dice_synonyms", "dice_worst", "spread"):
            found[metric] = float(np.mean([np.mean([p[metric] for p in c]) for c in chosen])) if chosen else None
        strata = [
            (
                float(np.mean([p["spread"] for p in parts[name]])),
                mean_replicates([p["group_id"] for p in parts[name]], [p["spread"] for p in parts[name]], name),
            )
            for name in names
        ]
        groups = sum(len({p["group_id"] for p in c}) for c in chosen)
        return {**found, "spread_interval": interval(over_strata(strata)), "groups": groups}

    names = sorted(parts)
    return {
        "all": figures([name for name in names if name not in external]),
        "external": figures([name for name in names if name in external]),
        "datasets": {name: figures([name]) for name in names},
    }


def failure_figures(rows: Sequence[Row]) -> dict[str, Any]:
    """`failures` of evaluation.json: dataset -> model -> reason -> pairs, text prompts."""
    found: dict[str, dict[str, Counter[str]]] = defaultdict(lambda: defaultdict(Counter))
    for row in rows:
        if row["prompt"] == "text":
            found[row["dataset"]][row["model"]].update([row["failure"]] if row["failure"] else [])
    return {
        dataset: {model: dict(sorted(counts.items())) for model, counts in sorted(models.items())}
        for dataset, models in sorted(found.items())
    }
