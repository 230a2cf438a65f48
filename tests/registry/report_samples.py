"""An evaluation folder with every figure that docs/architecture.md names, as made up; a pair by a fixed seed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from infra.storage import read_json, write_json
from registry.gate import decide
from registry.report import write_report
from tests.registry import samples

EXTERNAL = ("CHASE_DB1", "DSB2018")
HOSTILE = '<script>window.taken=1</script><img src=x onerror="window.taken=1">'
LONG = "a_name_" * 12 + "withoutanybreakinitbecausesomebodypastedawholesentence" * 2
PAIRS = 12  # present ones of each concept


def write_full_evaluation(folder: Path, candidate: Path, *, pictures: int = 60) -> Path:
    """`evaluation/` with intervals, paired differences, presence, surfaces, instances, wording and failures."""
    samples.write_evaluation(folder, candidate, pictures=0)
    figures = read_json(folder / "evaluation.json")
    entries = figures["datasets"]
    entries["BUSI"]["concepts"][HOSTILE] = entries["BUSI"]["concepts"].pop("benign tumour")
    entries["ISIC2017"]["concepts"][LONG] = dict(entries["ISIC2017"]["concepts"]["skin lesion"])
    for name, entry in entries.items():
        entry["external"] = name in EXTERNAL
        entry["dice_text_champion"] = _moved(entry["dice_text_after"], 0.02)
    outside = [entries[name] for name in EXTERNAL]
    figures["summary"]["external"] = {
        key: float(np.mean([one[key] for one in outside]))
        for key in ("dice_text_before", "dice_text_after", "dice_box_after", "dice_text_champion")
    } | {"samples": sum(one["samples"] for one in outside)}
    measured = {name: entry for name, entry in entries.items() if entry["dice_text_after"] is not None}
    figures |= {
        "schema": "2",
        "decision": {"mask_threshold": 0.5, "presence_threshold": 0.35},
        "aggregates": [
            _aggregate(*where, model, metric, value)
            for where, before, after in _levels(figures)
            for model, value in (("before", before), ("after", after))
            for metric in ("dice", "dice_instances", "dice_top1")
        ],
        "paired": [
            _paired(against, *where, before if against == "start" else after + 0.02, after)
            for against in ("start", "champion")
            for where, before, after in _levels(figures)
        ],
        "presence": {
            **_presence(),
            "models": {"after": _presence(), "before": _presence(0.5)},
            "external": {"after": _presence(0.7)},
            "datasets": {name: {"after": _presence(0.75)} for name in measured},
        },
        "surface": {
            "dcmqi": {
                "external": False,
                "tolerance_mm": 2.0,
                "volumes": 3,
                "not_measured": {"its spacing is not known": 2},
                "models": {"after": _surface(0.61, 9.5), "before": _surface(0.2, 31.25)},
                "concepts": {"liver": {"after": _surface(0.61, 9.5)}},
            }
        },
        "instances": {"DSB2018": {"external": True, "concepts": {"nucleus": {"after": _instances()}}}},
        "synonyms": {"all": _wording(), "external": _wording(), "datasets": {"BUSI": _wording()}},
        "failures": {name: {"after": _failures(2), "before": _failures(5)} for name in measured},
    }
    write_json(folder / "evaluation.json", figures)
    pq.write_table(_table(measured), folder / "evaluation.parquet")
    write_json(folder / "overlays.json", _overlays(folder, pictures))
    return folder


def write_page(folder: Path, evaluation: Path, candidate: Path) -> Path:
    """The report of a candidate against a champion that is better in one dataset."""
    figures = read_json(evaluation / "evaluation.json")
    champion = samples.evaluation("c" * 64, "d" * 64, change={"BUSI": 0.08})
    rules = {"min_dice_text": 0.25, "min_gain_over_start": 0.05, "max_score_absent": 0.25, "max_loss_per_dataset": 0.05}
    lineage = {"data_version": "data-v3", "current_data_version": "data-v3"}
    cards = samples.datasets()
    for card in cards:
        card["evaluation_only"] = card["dataset"] in EXTERNAL
        card["citation"] = HOSTILE
    write_report(
        folder / "report.html",
        evaluation=evaluation,
        candidate=candidate,
        datasets=cards,
        phases={"ingest": 71.0, "train": 214.0},
        gate=decide(figures, champion, rules, lineage=lineage),
        model={"name": "demo", "version": 3, "alias": "challenger"},
        links={"MLflow": "mlflow ui --backend-store-uri sqlite:///mlflow.db", "Prefect": "http://127.0.0.1:4200"},
    )
    return folder / "report.html"


def pair_rows(dataset: str, dice: list[float], **given: Any) -> list[dict[str, Any]]:
    """Rows of evaluation.parquet: one present pair a Dice, text prompts, model "after"; `given` changes columns."""
    return [
        {
            "sample_id": f"{dataset}/{number:04d}",
            "dataset": dataset,
            "modality": "CT",
            "case_id": f"{number:04d}",
            "group_id": f"{number:04d}",
            "concept": "liver",
            "prompt": "text",
            "model": "after",
            "present": True,
            "score": 0.9,
            "presence": 0.9,
            "dice": value,
            "iou": value / (2 - value),
            "dice_instances": value,
            "truth_px": 400,
            "predicted_px": 400,
            **given,
        }
        for number, value in enumerate(dice)
    ]


def _table(measured: dict[str, Any]) -> pa.Table:
    noise, rows = np.random.default_rng(7), []
    for name in measured:
        for model, middle in (("before", 0.15), ("after", 0.5)):
            dice = noise.uniform(0, 2 * middle, PAIRS).tolist()
            present = pair_rows(name, dice, model=model)
            absent = pair_rows(name, [0.0] * PAIRS, model=model, present=False, truth_px=0, predicted_px=9, concept="x")
            for row in present + absent:
                row["presence"] = float(noise.beta(5, 2) if row["present"] else noise.beta(2, 4))
                row["truth_px"] = int(10 ** noise.uniform(1, 5.5)) if row["present"] else 0
            rows += present + absent
    return pa.Table.from_pylist(rows)


def _overlays(folder: Path, pictures: int) -> list[dict[str, Any]]:
    entries = []
    for number in range(pictures):
        file = f"overlays/{number:03d}.png"
        Image.fromarray(samples.overlay(number)).save(folder / file)
        shown_as = ("worst", "median", "best", "dataset")[min(3, number // 20)]
        concept = HOSTILE if number == 0 else "polyp"
        dataset = "DSB2018" if number % 9 == 0 else "Kvasir-SEG"
        entries.append({"file": file, "dataset": dataset, "modality": "endoscopy", "concept": concept,
                        "sample_id": f"{dataset}/{number}", "dice_before": 0.1, "dice_after": number / 60,
                        "shown_as": [shown_as]})  # fmt: skip
    return entries


def _levels(figures: dict[str, Any]) -> list[tuple[tuple[str, str, bool], float, float]]:
    """((level, name, external), before, after) of all that has a value."""
    found = [
        (("all", "", external), summary["dice_text_before"], summary["dice_text_after"])
        for external, summary in ((False, figures["summary"]), (True, figures["summary"]["external"]))
    ]
    for name, entry in figures["datasets"].items():
        if entry["dice_text_after"] is None:
            continue
        places = [("dataset", name, entry), ("modality", entry["modality"], entry)]
        places += [("concept", concept, values) for concept, values in entry["concepts"].items()]
        found += [
            ((level, one, entry["external"]), values["dice_text_before"], values["dice_text_after"])
            for level, one, values in places
        ]
    return found


def _aggregate(level: str, name: str, external: bool, model: str, metric: str, value: float) -> dict[str, Any]:
    return {"level": level, "name": name, "external": external, "model": model, "prompt": "text", "metric": metric,
            "value": value, "interval": [max(0.0, value - 0.06), min(1.0, value + 0.06)], "groups": 8,
            "pairs": 40}  # fmt: skip


def _paired(against: str, level: str, name: str, external: bool, before: float, after: float) -> dict[str, Any]:
    difference = after - before
    return {"against": against, "level": level, "name": name, "external": external, "metric": "dice_text",
            "before": before, "after": after, "difference": difference, "pairs": 40,
            "groups": 1 if name == "polyp" else 8,
            "interval": None if name == "polyp" else [difference - 0.09, difference + 0.09]}  # fmt: skip


def _presence(auroc: float = 0.9) -> dict[str, Any]:
    return {"auroc": auroc, "auroc_interval": [auroc - 0.05, auroc + 0.05], "false_alarm_rate": 0.125,
            "false_alarm_rate_interval": [0.08, 0.2], "ece": 0.07, "ece_interval": None, "present_pairs": 84,
            "absent_pairs": 84}  # fmt: skip


def _surface(nsd: float, hd95_mm: float) -> dict[str, Any]:
    return {"dice": nsd, "dice_interval": [nsd - 0.1, nsd + 0.1], "nsd": nsd, "nsd_interval": [nsd - 0.1, nsd + 0.1],
            "hd95_mm": hd95_mm, "hd95_mm_interval": [hd95_mm / 2, hd95_mm * 2], "missed": 1, "pairs": 6,
            "groups": 3}  # fmt: skip


def _instances() -> dict[str, Any]:
    found: dict[str, Any] = {"truth": 812, "predicted": 790, "matched": 604, "samples": 5, "groups": 5}
    for name, value in (("f1", 0.75), ("pq", 0.6), ("ap", 0.41), ("ap50", 0.7)):
        found |= {name: value, f"{name}_interval": [value - 0.1, value + 0.1]}
    return found


def _wording() -> dict[str, Any]:
    return {"pairs": 40, "wordings": 120, "dice_canonical": 0.5, "dice_synonyms": 0.44, "dice_worst": 0.31,
            "spread": 0.19, "spread_interval": [0.12, 0.26], "groups": 20}  # fmt: skip


def _failures(count: int) -> dict[str, int]:
    reasons = ("missed", "elsewhere", "too_large", "too_small", "imprecise", "false_alarm")
    return {reason: count + place for place, reason in enumerate(reasons)}


def _moved(value: float | None, by: float) -> float | None:
    return None if value is None else value + by
