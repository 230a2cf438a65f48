"""Names of files and cases as they may be written: those of a closed dataset are pseudonyms by keyed hash.

A hospital names files by patients. Tables, pages, messages, logs and the inventory in git hold what `shown_file`
gives; on the machine that holds the files, whoever has the key finds the file again with `keep_names`' file.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from infra.errors import DataError
from infra.storage import write_text
from preprocessing.cards import DatasetCard
from preprocessing.deid import hide_uids, safe_ending
from preprocessing.pairing import files_below
from preprocessing.splits import pseudonym

Shown = Callable[[str], str]


def shown_case(card: DatasetCard, case_id: str, key: bytes) -> str:
    """A case's name as written: UIDs in it are pseudonyms, and for a closed dataset all of it."""
    if card.public:
        return hide_uids(case_id, card.domain, key)
    return pseudonym(card.domain, case_id, key, "c")


def shown_file(card: DatasetCard, file: str, key: bytes) -> str:
    """A file's name as written: UIDs in it are pseudonyms, and for a closed dataset all of it, with a known ending."""
    if card.public:
        return hide_uids(file, card.domain, key)
    return pseudonym(card.domain, file, key, "f") + safe_ending(file)


def for_messages(card: DatasetCard, key: bytes) -> Shown | None:
    """How messages name the files of a closed dataset; None for a public one, whose files are named by path."""
    return None if card.public else lambda file: shown_file(card, file, key)


def hidden(card: DatasetCard, files: Iterable[dict[str, Any]], key: bytes) -> list[dict[str, Any]]:
    """An inventory as it may leave the machine: of a closed dataset with pseudonyms for names."""
    if card.public:
        return list(files)
    return [{**one, "file": shown_file(card, str(one["file"]), key)} for one in files]


def found_again(card: DatasetCard, inventory: list[dict[str, Any]], root: Path, key: bytes) -> list[dict[str, Any]]:
    """`inventory` with the names that its files have below `root`; the other way of `hidden`.

    DataError where a file of the inventory is not there, or all pseudonyms were made with another key.
    """
    if card.public:
        return inventory
    real = {shown_file(card, file, key): file for file in files_below(root)}
    gone = sorted(str(one["file"]) for one in inventory if one["file"] not in real)
    if gone:
        other = " (made with another SEGFOUNDRY_PSEUDONYM_KEY?)" if len(gone) == len(inventory) else ""
        msg = (
            f"{card.name}: {len(gone)} scanned file(s) are gone, first {gone[0]}{other}. "
            f"Scan again: `segfoundry data fetch {card.name}`"
        )
        raise DataError(msg)
    return [{**one, "file": real[str(one["file"])]} for one in inventory]


def keep_names(card: DatasetCard, files: Iterable[dict[str, Any]], key: bytes, path: Path) -> None:
    """Write, for the owner of this machine alone, which file a pseudonym stands for; nothing for a public dataset.

    The one file with real names: it must stay in the workspace's machine-local folder.
    """
    if card.public:
        path.unlink(missing_ok=True)
        return
    names = {shown_file(card, str(one["file"]), key): str(one["file"]) for one in files}
    path.parent.mkdir(parents=True, exist_ok=True)
    os.chmod(path.parent, 0o700)
    write_text(path, json.dumps(names, indent=0, sort_keys=True, ensure_ascii=False) + "\n")
    os.chmod(path, 0o600)
