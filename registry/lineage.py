"""What made a model: data version, manifests, licences, code, parameters, parent, evaluation."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from infra.errors import DataError
from infra.storage import digest_of, read_json

Lineage = dict[str, Any]

# What our tags in MLflow begin with.
TAG = "segfoundry."

# From free to strict. A licence text is matched by the first pattern found in it, tried from the
# strictest, so that "CC BY-NC-SA" is not taken for "CC BY".
_STRICTNESS: tuple[tuple[str, int], ...] = (
    (r"no.?redistribution|restricted|data use agreement|\bDUA\b", 60),
    (r"unknown|unstated|not stated|\bnone\b", 55),
    (r"research|challenge|terms", 50),
    (r"BY-NC-ND", 46),
    (r"BY-NC-SA", 44),
    (r"BY-NC|non.?commercial", 42),
    (r"BY-ND", 38),
    (r"A?GPL", 34),
    (r"BY-SA|share.?alike", 30),
    (r"BY\b|ODC-By", 20),
    (r"MIT|Apache|BSD", 10),
    (r"CC0|public.?domain|PDDL|Unlicense", 0),
)
_UNKNOWN_STRICTNESS = 55


def evaluation_digest(evaluation: dict[str, Any]) -> str:
    """The identity of an evaluation: the digest of what `evaluation.json` says."""
    return digest_of(evaluation)


def licence_name(licence: dict[str, Any] | None) -> str:
    """The name of a card's licence: its SPDX identifier, else its terms, else "unknown"."""
    if not licence:
        return "unknown"
    return str(licence.get("spdx") or licence.get("terms") or "unknown")


def licence_strictness(licence: dict[str, Any] | None) -> int:
    """How much a licence forbids, 0 (public domain) to 60; what is not understood counts as unknown."""
    text = licence_name(licence).replace("_", "-").replace(" BY", "-BY")
    levels = (level for pattern, level in _STRICTNESS if re.search(pattern, text, flags=re.IGNORECASE))
    level = next(levels, _UNKNOWN_STRICTNESS)
    if licence and licence.get("redistribution") is False:
        level = max(level, 60)
    if licence and licence.get("commercial") is False:
        level = max(level, 42)
    return level


def strictest_licence(datasets: Iterable[dict[str, Any]]) -> str:
    """The name of the strictest licence among `dataset.json` contents; "unknown" where there is none."""
    ranked = sorted(
        ((licence_strictness(one.get("licence")), licence_name(one.get("licence"))) for one in datasets), reverse=True
    )
    return ranked[0][1] if ranked else "unknown"


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
    return {
        "data_version": data_version,
        "data_commit": data_commit,
        "current_data_version": current_data_version or data_version,
        "code_commit": code_commit,
        "manifest_digests": dict(sorted(digests.items())),
        "datasets": [_dataset(cards[name]) for name in sorted(cards)],
        "strictest_licence": strictest_licence(cards.values()),
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
