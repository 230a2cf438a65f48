"""Where a patient is: data versions, splits, shards, models."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pipelines.audits import keys
from pipelines.audits.record import Record
from preprocessing.withdrawn import read_tombstones
from registry.audit import measured_on, models_that_saw, places_of
from registry.store import ModelVersion, RegistryStore

Document = dict[str, Any]


def audit(record: Record, store: RegistryStore, text: str) -> Document:
    """{"key", "found", "places", "models", "tombstones", "unread", "live"} of a case, group, sample or original name.

    `key` is as manifests name it, also where an original name was asked for. `live` is whether the newest data version
    holds it. UsageError with near names for an unknown key.
    """
    return answer(record, store, keys.find(record, text))


def answer(record: Record, store: RegistryStore, key: keys.Key) -> Document:
    """The same for a key that was understood already."""
    manifests = record.manifests()
    wanted = {dataset: key.of(dataset) for dataset in record.all_datasets()}
    places, unread = places_of(manifests, wanted)
    if key.sample:
        shards = _shards_of_sample(record, key)
        places = [
            {**one, "sample_shards": shards[one["data_version"]]} for one in places if one["data_version"] in shards
        ]
    names = {(one["dataset"], name) for one in places for name in (one["case_id"], one["group_id"])}
    stones = [
        {key: getattr(one, key) for key in ("dataset", "identifier", "reason", "actor", "at", "twin_of")}
        for one in read_tombstones(record.place.tombstones)
        if (one.dataset, one.identifier) in names
    ]
    return {
        "key": key.shown,
        "sample": key.sample or None,
        "by_original_name": key.by_name,
        "found": bool(places),
        "live": bool(record.tags) and any(one["data_version"] == record.tags[-1] for one in places),
        "newest_data_version": record.tags[-1] if record.tags else None,
        "places": places,
        "models": seen_by(store, places),
        "tombstones": stones,
        "unread": unread,
    }


def seen_by(store: RegistryStore, places: Sequence[Document]) -> list[Document]:
    """The models whose data hold one of `places`, and those that started from them."""
    return models_that_saw(places, all_models(store), lambda version: measured_on(store, version))


def all_models(store: RegistryStore) -> list[ModelVersion]:
    """Every version of every model that has our lineage; another team's in the same MLflow has no data of ours."""
    return [version for name in store.our_models() for version in store.versions(name)]


def _shards_of_sample(record: Record, key: keys.Key) -> dict[str, list[str]]:
    """Data version -> shards that hold the one sample."""
    found: dict[str, list[str]] = {}
    for tag, tables in record.manifests().items():
        for dataset, manifest in tables.items():
            if not key.sample.startswith(f"{dataset}/"):
                continue
            rows = manifest.find(key.of(dataset)).to_pylist()
            if shards := sorted({row["shard"] for row in rows if row["sample_id"] == key.sample}):
                found[tag] = shards
    return found
