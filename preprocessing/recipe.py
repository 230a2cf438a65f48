"""What makes a row: the card, and the code that reads it. `recipes/<dataset>.json` is this, written down."""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path
from typing import Any

from infra.storage import digest_of
from preprocessing import ontology
from preprocessing.cards import DatasetCard

_HERE = Path(__file__).parent
# Code that decides what a row says, and code that only decides how a version is written.
_ROW_CODE = (
    "cards.py", "rules.py", "pairing.py", "many.py", "deid.py", "burned_in.py", "readers/*.py", "harmonize/*.py",
    "schema/*.py",
)  # fmt: skip
_BUILD_CODE = (
    "build.py", "card_figures.py", "card_page.py", "card_pictures.py", "case_cache.py", "dedup.py", "fingerprint.py",
    "hashes.py", "near.py", "ontology.py", "quality.py", "recipe.py", "shards.py", "splits.py", "steps/*.py",
    "withdrawn.py", "templates/card*.html",
)  # fmt: skip


def recipe_file(card: DatasetCard) -> dict[str, Any]:
    """The content of `recipes/<dataset>.json`: resolved card, concepts, and digests of the code that matters to it."""
    own = _own_file(card)
    row_code = _digest([*_matching(_ROW_CODE), *([own] if own else [])])
    return {
        "dataset": card.name,
        "card": card.resolved(),
        "concepts": {concept: ontology.describe(concept, card.modality, card.synonyms) for concept in card.concepts},
        "unions": {union: ontology.parts_of(union) for union in card.unions},
        "row_code_sha256": row_code,
        "code_sha256": digest_of([row_code, _digest(_matching(_BUILD_CODE))]),
    }


def recipe_sha256(recipe: dict[str, Any], harmonize: dict[str, Any]) -> str:
    """Digest of what decides a row: card, parts of its unions, harmonization parameters, reading code."""
    decides = {"card": recipe["card"], "code": recipe["row_code_sha256"], "harmonize": harmonize}
    return digest_of({**decides, "unions": recipe["unions"]} if recipe["unions"] else decides)


def _own_file(card: DatasetCard) -> Path | None:
    prefix = "preprocessing.datasets."
    for name, module in sorted(sys.modules.items()):
        if name.startswith(prefix) and getattr(module, "CARD", None) == card and module.__file__:
            return Path(module.__file__)
    return None


def _matching(patterns: tuple[str, ...]) -> list[Path]:
    return sorted(path for pattern in patterns for path in _HERE.glob(pattern))


def _digest(paths: list[Path]) -> str:
    digest = hashlib.sha256()
    for path in paths:
        digest.update(path.relative_to(_HERE).as_posix().encode() if path.is_relative_to(_HERE) else path.name.encode())
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()
