"""A registered version before the gate: its evidence is fetched from the registry, and `registry.gate` decides."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from registry.artifacts import ArtifactGone
from registry.comparison import compare, measured_together
from registry.gate import GateReport, RuleResult, decide
from registry.store import ModelVersion, RegistryStore

_CHAMPION = "champion"
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
) -> GateReport:
    """The gate's verdict on a version, against the champion of now; changes nothing.

    The champion keeps the verdict it was promoted with. `data_changed` says that the data is another than that of
    `current_data_version`, and in no version yet. `leakage` is what `preprocessing.leakage` found in the
    current data.
    """
    chosen = store.resolve(name, version)
    if _CHAMPION in chosen.aliases:
        kept = store.gate_of(name, chosen.version)
        if kept is not None:
            return kept
    evaluation = store.evaluation_of(name, chosen.version)
    champion = _other_champion(store, chosen)
    against, unread = _of_champion(store, champion, evaluation)
    asked = champion and not unread and "no_significant_loss" in rules
    report = decide(
        evaluation,
        against,
        rules,
        lineage={
            **store.lineage_of(name, chosen.version),
            "current_data_version": current_data_version,
            "data_changed": data_changed,
        },
        comparison=_compared(store, chosen, champion, evaluation, against or {}) if champion and asked else None,
        leakage=leakage,
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
    number = store.aliases(chosen.name).get(_CHAMPION)
    return store.resolve(chosen.name, number) if number is not None else None


def _compared(
    store: RegistryStore,
    chosen: ModelVersion,
    champion: ModelVersion,
    evaluation: dict[str, Any],
    against: dict[str, Any],
) -> list[dict[str, Any]] | None:
    """Paired differences; None where one of the two has no rows to compare."""
    together = measured_together(evaluation, champion.weights_sha256)
    if together is not None:
        return together
    if not all(store.has_artifact(one.run_id, _ROWS) for one in (chosen, champion)):
        return None
    ours, theirs = evaluation.get("manifest_digests") or {}, against.get("manifest_digests") or {}
    datasets = evaluation.get("datasets") or {}
    with (
        store.artifact(chosen.run_id, _ROWS) as candidate_rows,
        store.artifact(champion.run_id, _ROWS) as champion_rows,
    ):
        return compare(
            candidate_rows,
            champion_rows,
            same_data=[name for name in ours if theirs.get(name) == ours[name]],
            external=[name for name, entry in datasets.items() if entry.get("external")],
        )
