"""The terms that start weights bring with them: a model derived from weights is bound by theirs, as by its data's.

Needs no torch. Every entry has the form of a card's licence (`preprocessing/schema/licences.py`) and `of`, what it is
of; `train.json` holds them as `start_licences`, so that a model continued from another one inherits them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from infra.storage import read_json
from preprocessing.schema.licences import licence_name
from training.recipes import Preprocessing
from training.sam3.source import locate

TRAIN_RECORD = "train.json"
# The SAM License (Meta, 19 November 2025) lets use, change and pass on, for money too, but passes itself on with
# everything derived, and forbids some uses (military, weapons, …): terms of their own.
SAM = {"of": "SAM3 weights", "terms": "SAM License", "commercial": "yes", "redistribution": "yes"}
_NOT_STATED = {"terms": "not stated", "commercial": "unknown", "redistribution": "unknown"}
_META = re.compile(r"facebook/sam3[\w.-]*(@.*)?")
_MEDICAL = re.compile(r"med(ical)?[-_]?sam[-_]?3", re.IGNORECASE)

Licence = dict[str, Any]


def start_licences(start: str, report: Mapping[str, Any]) -> list[Licence]:
    """Terms of the weights that a run starts from, in the order in which they were added.

    - A model folder of ours: what its `train.json` inherited, and the strictest of its data.
    - Meta's own release (the Hub's `facebook/sam3`, or official names with prefix `detector.` and a tracker beside
      them): the SAM License.
    - Other SAM3 weights, Medical-SAM3's with them: the SAM License, and terms of whoever trained them, which are not
      stated in the file. Medical-SAM3's repository states none (as of 2026-01-20).

    Args:
        start: as `locate` takes it; empty for our own initialisation, which has none.
        report: of what was loaded (`LoadReport.record`).
    """
    if not start:
        return []
    located = locate(start)
    if located.config is not None and "engine" in (read_json(located.config) or {}):
        return _of_ours(located.config.with_name(TRAIN_RECORD), str(report.get("source", "")))
    return _of_others(start, report)


def _of_ours(record_file: Any, source: str) -> list[Licence]:
    if not record_file.is_file():
        return [{"of": f"model {source}, which has no {TRAIN_RECORD}", **_NOT_STATED}]
    record = read_json(record_file)
    inherited = record.get("start_licences")
    if inherited is None and record.get("start"):  # trained before licences of weights were noted
        inherited = _of_others(str(record["start"].get("source", "")), record["start"])
    data = record.get("licence") or {}
    return _once(
        [
            *(inherited or []),
            {
                "of": f"data of model {str(record.get('weights_sha256', ''))[:12] or source}",
                "terms": data.get("strictest", "unknown"),
                "commercial": data.get("commercial", "unknown"),
                "redistribution": data.get("redistribution", "unknown"),
            },
        ]
    )


def _of_others(start: str, report: Mapping[str, Any]) -> list[Licence]:
    aside = " ".join(report.get("aside") or ())
    released = report.get("layout") == "official" and report.get("prefix") == "detector." and "tracker" in aside
    # the name and its folder alone: what lies above says nothing of the weights
    if _MEDICAL.search("/".join(Path(start).parts[-2:])):
        return [SAM, {"of": "Medical-SAM3 weights", **_NOT_STATED}]
    if _META.fullmatch(start) or released:
        return [SAM]
    return [SAM, {"of": f"weights {report.get('source', '')}, trained further by others", **_NOT_STATED}]


def _once(licences: Iterable[Licence]) -> list[Licence]:
    return list({(one["of"], licence_name(one)): one for one in licences}.values())


def preprocessing_of_start(start: str) -> Preprocessing:
    """How pictures become a model's input, by the weights that a run starts from: `official` or `pillow`.

    Weights from elsewhere were trained on what the official processor makes; a model folder of ours says it itself.
    """
    located = locate(start)
    stored = read_json(located.config) if located.config is not None else {}
    ours = "engine" in stored and stored.get("preprocessing", "pillow") == "pillow"
    return "pillow" if ours else "official"
