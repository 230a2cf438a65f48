"""A registered version before the gate: its evidence is fetched from the registry, and `registry.gate` decides."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from registry.artifacts import ArtifactGone
from registry.comparison import compare, measured_together
from registry.coverage import coverage
from registry.gate import GateReport, RuleResult, decide
from registry.intents import CHAMPION
from registry.store import ModelVersion, RegistryStore

_ROWS = "evaluation/evaluation.parquet"
_AGAINST_CHAMPION = ("max_loss_per_dataset", "no_significant_loss")


def judge(
    store: RegistryStore,
    name: str,
    version: int | str,
    rules: dict[str, Any],
    *,
    current_data_version: str,
    data_changed: bool = False,
    leakage: dict[str, Any] | None = None,
    withdrawn: Mapping[str, Collection[str]] | None = None,
) -> GateReport:
    """The gate's verdict on a version, against the champion of now; changes nothing.

    The champion keeps the verdict it was promoted with. `data_changed` says that the data is another than that of
    `current_data_version`, and in no version yet. `leakage` is what `preprocessing.leakage` found in the current
    data; `withdrawn` the cases and groups by dataset that are under a tombstone.
    """
    chosen = store.resolve(name, version)
    if CHAMPION in chosen.aliases:
        kept = store.gate_of(name, chosen.version)
        if kept is not None:
            return kept
    evaluation = store.evaluation_of(name, chosen.version)
    champion = _other_champion(store, chosen)
    against, unread = _of_champion(store, champion, evaluation)
    lineage = {
        **store.lineage_of(name, chosen.version),
        "current_data_version": current_data_version,
        "data_changed": data_changed,
    }
    if champion is None or against is None:
        return decide(evaluation, None, rules, lineage=lineage, leakage=leakage)
    together = measured_together(evaluation, champion.weights_sha256)
    with _rows_of(store, chosen, champion) as rows:
        compared: Sequence[dict[str, Any]] | None = together
        if rows and together is None and not unread and "no_significant_loss" in rules:
            compared = _compared(rows, evaluation, against)
        covered = coverage(*rows, withdrawn or {}, together=together is not None) if rows else None
    report = decide(
        evaluation,
        against,
        rules,
        lineage=lineage,
        comparison=compared,
        leakage=leakage,
        coverage=covered,
        champion_version=champion.version,
    )
    return _blocked(report, unread) if unread and set(_AGAINST_CHAMPION) & set(rules) else report


def _of_champion(
    store: RegistryStore, champion: ModelVersion | None, evaluation: dict[str, Any]
) -> tuple[dict[str, Any] | None, RuleResult | None]:
    """The champion's evaluation, and the result that blocks where its file is gone.

    One that measured candidate and champion in the same call (`segfoundry evaluate --against`) says what is needed.
    """
    if champion is None:
        return None, None
    try:
        return store.evaluation_of(champion.name, champion.version), None
    except ArtifactGone as error:
        why = str(error)
    measured = {
        name: {**entry, "dice_text_after": entry.get("dice_text_champion")}
        for name, entry in (evaluation.get("datasets") or {}).items()
    }
    found = {"weights_sha256": champion.weights_sha256, "manifest_digests": evaluation.get("manifest_digests")}
    if measured_together(evaluation, champion.weights_sha256) is not None:
        return {**found, "datasets": measured}, None
    uri = f"models:/{champion.name}/{champion.version}"
    text = (
        f"The champion's evaluation cannot be read: {why}. Measure both again: segfoundry evaluate --model "
        f"models/candidate --against {uri}, then segfoundry model register --evaluation FOLDER."
    )
    return found, RuleResult("champion_evaluation", None, None, False, text, f"version {champion.version}")


def _blocked(report: GateReport, unread: RuleResult) -> GateReport:
    """Rules that compare with the champion had nothing to compare with: one result says so in their place."""
    kept = [rule for rule in report.rules if rule.name not in _AGAINST_CHAMPION]
    return replace(report, verdict="block", rules=(*kept, unread))


def _other_champion(store: RegistryStore, chosen: ModelVersion) -> ModelVersion | None:
    number = store.aliases(chosen.name).get(CHAMPION)
    return store.resolve(chosen.name, number) if number is not None else None


@contextlib.contextmanager
def _rows_of(
    store: RegistryStore, candidate: ModelVersion, champion: ModelVersion
) -> Iterator[tuple[Path, Path] | None]:
    """Both `evaluation.parquet` for the block; None where one of the two has none."""
    if not all(store.has_artifact(one.run_id, _ROWS) for one in (candidate, champion)):
        yield None
        return
    with store.artifact(candidate.run_id, _ROWS) as ours, store.artifact(champion.run_id, _ROWS) as theirs:
        yield ours, theirs


def _compared(rows: tuple[Path, Path], evaluation: dict[str, Any], against: dict[str, Any]) -> Sequence[dict[str, Any]]:
    """Paired differences."""
    ours, theirs = evaluation.get("manifest_digests") or {}, against.get("manifest_digests") or {}
    datasets = evaluation.get("datasets") or {}
    return compare(
        *rows,
        same_data=[name for name in ours if theirs.get(name) == ours[name]],
        external=[name for name, entry in datasets.items() if entry.get("external")],
    )
