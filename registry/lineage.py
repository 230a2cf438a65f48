"""What made a model: data version, manifests, licences, code, parameters, parent, evaluation."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from infra.errors import DataError
from infra.secrets import without_secrets
from infra.storage import digest_of, read_json, sha256_file
from preprocessing.schema import CONCEPTS_FILE, MANIFEST_FILE, read_dataset_file
from preprocessing.schema.licences import licence_name, licence_strictness, model_licence, strictest_licence

__all__ = [
    "TAG",
    "Lineage",
    "build_lineage",
    "describe_dataset",
    "evaluation_digest",
    "licence_name",
    "licence_strictness",
    "resolved_parameters",
    "split_digest",
    "strictest_licence",
    "version_tags",
]

Lineage = dict[str, Any]

# What our tags in MLflow begin with.
TAG = "segfoundry."


def evaluation_digest(evaluation: dict[str, Any]) -> str:
    """The identity of an evaluation: the digest of what `evaluation.json` says."""
    return digest_of(evaluation)


def split_digest(manifest: Path) -> str:
    """The identity of a dataset's splits: the digest of its sorted (group, split) pairs, whatever else changes."""
    table = pq.read_table(manifest, columns=["group_id", "split"]).group_by(["group_id", "split"]).aggregate([])
    return digest_of(sorted([row["group_id"], row["split"]] for row in table.to_pylist()))


def describe_dataset(folder: Path) -> dict[str, Any]:
    """`dataset.json` of a version with its `split_digest` and `ontology_digest`.

    The latter is the SHA-256 of `concepts.json`: the names, synonyms and parents that training took its prompts from.
    """
    return {
        **read_dataset_file(folder),
        "split_digest": split_digest(folder / MANIFEST_FILE),
        "ontology_digest": sha256_file(folder / CONCEPTS_FILE),
    }


def resolved_parameters(train: Mapping[str, Any], params: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """All that was set for a training run: its resolved recipe and seed, and the workspace's `params.yaml`.

    Addresses come without the secrets that may be in them.
    """
    names = ("recipe", "seed", "steps", "workers")
    said = {"train": {name: train.get(name) for name in names}, "params": params}
    cleaned: dict[str, Any] = json.loads(without_secrets(json.dumps(said, sort_keys=True, default=str)))
    return cleaned


def build_lineage(
    candidate: Path,
    evaluation: Path,
    datasets: Iterable[dict[str, Any]],
    *,
    data_version: str,
    data_commit: str,
    code_commit: str,
    current_data_version: str | None = None,
    params: Mapping[str, Any] | None = None,
    parent: str | None = None,
) -> Lineage:
    """The lineage of a candidate from its own files and `describe_dataset` of what it was trained and measured on.

    `current_data_version` is the newest one there is (default: the one used); the gate compares them. `params` is
    the resolved `params.yaml`; `parent` names the registered version ("NAME/3") whose weights training started from.
    Raises DataError where candidate, evaluation and datasets do not belong together.
    """
    train = read_json(candidate / "train.json")
    figures = read_json(evaluation / "evaluation.json")
    if train["weights_sha256"] != figures["weights_sha256"]:
        msg = (
            f"{evaluation}: expected the evaluation of weights {train['weights_sha256'][:12]} ({candidate}), "
            f"found one of {str(figures['weights_sha256'])[:12]}; run the evaluation again"
        )
        raise DataError(msg)
    digests: dict[str, str] = train["datasets"]
    datasets_given = list(datasets)
    cards = {one["dataset"]: one for one in datasets_given if one["dataset"] in digests}
    for name, digest in digests.items():
        found = cards.get(name, {}).get("manifest_digest")
        if found != digest:
            msg = (
                f"dataset {name}: expected manifest {digest[:12]}, which the model was trained on, "
                f"found {str(found)[:12]} in its dataset.json; check out data version {data_version} or train again"
            )
            raise DataError(msg)
    external = _measured_alone(figures, digests, datasets_given)
    parameters = resolved_parameters(train, params)
    inherited = train.get("start_licences") or []  # of the weights that training started from
    licence = model_licence([*cards.values(), *({"licence": one} for one in inherited)])
    return {
        "data_version": data_version,
        "data_commit": data_commit,
        "current_data_version": current_data_version or data_version,
        "code_commit": code_commit,
        "manifest_digests": dict(sorted(digests.items())),
        "datasets": [_dataset(cards[name]) for name in sorted(cards)],
        "external_datasets": [_dataset(one) for one in external],
        "split_digests": _digests(cards, "split_digest"),
        "split_digest": _digest_over(cards, "split_digest"),
        "ontology_digests": _digests(cards, "ontology_digest"),
        "ontology_digest": _digest_over(cards, "ontology_digest"),
        "parameters": parameters,
        "parameters_digest": digest_of(parameters),
        "parent": _parent(train, parent),
        "strictest_licence": licence["strictest"],
        "commercial_use": licence["commercial"],
        "redistribution": licence["redistribution"],
        "start_licences": inherited,
        "lora": (train["recipe"] or {}).get("lora"),
        "weights_sha256": train["weights_sha256"],
        "start_sha256": train["start_sha256"],
        "evaluation_digest": evaluation_digest(figures),
        "recipe_digest": digest_of(train["recipe"]),
        "seed": train.get("seed"),
        "steps": train.get("steps"),
    }


def version_tags(lineage: Lineage, figures: dict[str, Any]) -> dict[str, str]:
    """The lineage as flat tags of a version."""
    names = (
        "data_version",
        "data_commit",
        "code_commit",
        "strictest_licence",
        "commercial_use",
        "redistribution",
        "start_sha256",
        "recipe_digest",
        "split_digest",
        "ontology_digest",
        "parameters_digest",
    )
    tags = {f"{TAG}{name}": str(lineage[name]) for name in names if lineage.get(name)}
    tags[f"{TAG}weights_sha256"] = str(figures["weights_sha256"])
    tags[f"{TAG}evaluation_digest"] = evaluation_digest(figures)
    for name, digest in (lineage.get("manifest_digests") or {}).items():
        tags[f"{TAG}manifest.{name}"] = str(digest)
    for name, digest in (lineage.get("split_digests") or {}).items():
        tags[f"{TAG}split.{name}"] = str(digest)
    for one in lineage.get("external_datasets") or []:
        tags[f"{TAG}external.{one['dataset']}"] = str(one["manifest_digest"])
    if lineage.get("parent"):
        tags[f"{TAG}parent"] = parent_name(lineage["parent"])
    return tags


def lineage_of_tags(tags: Mapping[str, str]) -> Lineage:
    """What a version's tags still say of its lineage where its file is gone: no counts, seed or terms."""
    said = {key.removeprefix(TAG): value for key, value in tags.items() if key.startswith(TAG)}
    names = ("data_version", "data_commit", "code_commit", "weights_sha256", "start_sha256", "evaluation_digest")
    manifests = {key.removeprefix("manifest."): one for key, one in said.items() if key.startswith("manifest.")}
    return {
        **{name: said.get(name, "") for name in names},
        **{name: said.get(name, "unknown") for name in ("strictest_licence", "commercial_use", "redistribution")},
        "manifest_digests": manifests,
        "datasets": [{"dataset": name, "manifest_digest": digest} for name, digest in sorted(manifests.items())],
    }


def parent_name(parent: Mapping[str, Any]) -> str:
    """A parent in words: a registered version, else the file that training started from, else our own start."""
    if parent.get("version"):
        return str(parent["version"])
    source = parent.get("source")
    return f"{source} (SHA-256 {parent['source_sha256'] or 'not noted'})" if source else "own initialisation"


def _parent(train: Mapping[str, Any], version: str | None) -> dict[str, Any]:
    start = train.get("start") or {}
    return {
        "version": version,
        "start_sha256": train["start_sha256"],
        "source": start.get("source"),
        "source_sha256": start.get("sha256") or None,
    }


def _measured_alone(
    figures: Mapping[str, Any], trained: Mapping[str, str], datasets: Iterable[dict[str, Any]]
) -> list[dict[str, Any]]:
    """The datasets that the model was measured on and not trained on, in the versions that the evaluation names."""
    measured = figures.get("manifest_digests") or {}
    return [
        one
        for one in sorted(datasets, key=lambda each: str(each["dataset"]))
        if one["dataset"] not in trained and measured.get(one["dataset"]) == one.get("manifest_digest")
    ]


def _digests(cards: Mapping[str, Mapping[str, Any]], name: str) -> dict[str, str]:
    return {dataset: str(card[name]) for dataset, card in sorted(cards.items()) if card.get(name)}


def _digest_over(cards: Mapping[str, Mapping[str, Any]], name: str) -> str | None:
    """One digest of all datasets' digests; None where a dataset has none."""
    found = _digests(cards, name)
    return digest_of(found) if len(found) == len(cards) else None


def _dataset(card: dict[str, Any]) -> dict[str, Any]:
    kept = ("dataset", "title", "modality", "licence", "citation", "source_kind", "counts", "splits", "manifest_digest")
    return {name: card.get(name) for name in (*kept, "recipe_sha256", "split_digest", "ontology_digest")}
