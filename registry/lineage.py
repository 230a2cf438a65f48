"""What made a model: data version, manifests, licences, code, parameters, parent, evaluation."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from infra.errors import DataError
from infra.storage import digest_of, read_json
from preprocessing.schema.licences import licence_name, licence_strictness, model_licence, strictest_licence

__all__ = [
    "TAG",
    "Lineage",
    "build_lineage",
    "evaluation_digest",
    "licence_name",
    "licence_strictness",
    "strictest_licence",
    "version_tags",
]

Lineage = dict[str, Any]

# What our tags in MLflow begin with.
TAG = "segfoundry."


def evaluation_digest(evaluation: dict[str, Any]) -> str:
    """The identity of an evaluation: the digest of what `evaluation.json` says."""
    return digest_of(evaluation)


def build_lineage(
    candidate: Path,
    evaluation: Path,
    datasets: Iterable[dict[str, Any]],
    *,
    data_version: str,
    data_commit: str,
    code_commit: str,
    current_data_version: str | None = None,
) -> Lineage:
    """The lineage of a candidate from its own files and the `dataset.json` of what it was trained on.

    `current_data_version` is the newest one there is (default: the one used); the gate compares them.
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
    cards = {one["dataset"]: one for one in datasets if one["dataset"] in digests}
    for name, digest in digests.items():
        found = cards.get(name, {}).get("manifest_digest")
        if found != digest:
            msg = (
                f"dataset {name}: expected manifest {digest[:12]}, which the model was trained on, "
                f"found {str(found)[:12]} in its dataset.json; check out data version {data_version} or train again"
            )
            raise DataError(msg)
    inherited = train.get("start_licences") or []  # of the weights that training started from
    licence = model_licence([*cards.values(), *({"licence": one} for one in inherited)])
    return {
        "data_version": data_version,
        "data_commit": data_commit,
        "current_data_version": current_data_version or data_version,
        "code_commit": code_commit,
        "manifest_digests": dict(sorted(digests.items())),
        "datasets": [_dataset(cards[name]) for name in sorted(cards)],
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
    )
    tags = {f"{TAG}{name}": str(lineage[name]) for name in names if lineage.get(name)}
    tags[f"{TAG}weights_sha256"] = str(figures["weights_sha256"])
    tags[f"{TAG}evaluation_digest"] = evaluation_digest(figures)
    for name, digest in (lineage.get("manifest_digests") or {}).items():
        tags[f"{TAG}manifest.{name}"] = str(digest)
    return tags


def _dataset(card: dict[str, Any]) -> dict[str, Any]:
    kept = ("dataset", "title", "modality", "licence", "citation", "source_kind", "counts", "splits", "manifest_digest")
    return {name: card.get(name) for name in (*kept, "recipe_sha256")}
