"""A registered version before the gate: its evidence is fetched from the registry, and `registry.gate` decides."""

from __future__ import annotations

from typing import Any

from registry.comparison import compare, measured_together
from registry.gate import GateReport, decide
from registry.store import ModelVersion, RegistryStore

_CHAMPION = "champion"
_ROWS = "evaluation/evaluation.parquet"


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
    against = store.evaluation_of(name, champion.version) if champion else None
    asked = champion and "no_significant_loss" in rules
    return decide(
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
