"""Account for every file of a source: used, quarantined, or listed as no data.

The rules that refuse a case, by `reason`: unreadable, too_large, dimensions, spacing, affine_conflict, shear,
image_kind, blank, contour_type, contour_plane, burned_in_text, pages, channels, intensity, unknown_label,
polygon, outline, variable, resolution, sides, empty_label,
label_kind, mask_size, mask_grid, segmentation_type, unknown_slice, series, missing_slice, duplicate_slice,
image_missing, label_missing, image_count; when all cases are known, duplicate; for cases with a tombstone,
withdrawn; and for files that belong to no case, not_on_card and file_name.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from infra.errors import DataError
from preprocessing.cards import DatasetCard, RawCase
from preprocessing.inventory import badly_named
from preprocessing.pairing import why_not_data


@dataclass(frozen=True)
class Account:
    """Where each of `found` files of an inventory went: `used`, `refused` by case, `not_data` with why, `unclaimed`."""

    found: int
    used: frozenset[str]
    refused: frozenset[str]
    not_data: dict[str, str]
    unclaimed: tuple[str, ...]

    def counts(self) -> dict[str, int]:
        """File counts; `account` has checked that they add up to `files_found`."""
        return {
            "files_found": self.found,
            "files_used": len(self.used),
            "files_quarantined": len(self.refused) + len(self.unclaimed),
            "files_not_data": len(self.not_data),
        }


def account(
    card: DatasetCard, files: Iterable[str], kept: Iterable[RawCase], refused: Iterable[RawCase] = ()
) -> Account:
    """Put each file of the inventory into exactly one place; a file that a kept case used counts as used.

    Raises DataError where the places do not hold as many files as the inventory lists.
    """
    inventory = list(files)
    listed = set(inventory)
    used = frozenset(file for case in kept for file in case.files) & listed
    left_out = (frozenset(file for case in refused for file in case.files) & listed) - used
    rest = sorted(listed - used - left_out)
    reasons = {file: why_not_data(card, file) for file in rest}
    where = Account(
        found=len(inventory),
        used=used,
        refused=left_out,
        not_data={file: why for file, why in reasons.items() if why is not None},
        unclaimed=tuple(file for file, why in reasons.items() if why is None),
    )
    counts = where.counts()
    check_sum(card, "files", counts.pop("files_found"), counts)
    return where


def check_sum(card: DatasetCard, what: str, found: int, parts: dict[str, int]) -> None:
    """DataError unless `parts` add up to `found`: a version that lost something must not be written."""
    if found != sum(parts.values()):
        listed = " + ".join(f"{count} {name}" for name, count in parts.items())
        msg = f"{card.name}: expected {found} {what} as found, but counted {listed} = {sum(parts.values())}"
        raise DataError(msg)


def unclaimed_row(shown: str) -> dict[str, str]:
    """The quarantine row of a file that no expression of the card names; it counts as a case of its own."""
    if badly_named(shown):
        reason = "file_name"
        said = {"expected": "a file name in UTF-8", "found": "other bytes, which stand here as \\x and two digits"}
        return {"case_id": f"file:{shown}", "file": shown, "reason": reason, **said}
    return {
        "case_id": f"file:{shown}",
        "file": shown,
        "reason": "not_on_card",
        "expected": "a file that the card names as image, label or no data",
        "found": "a name that matches none of its expressions",
    }


def duplicate_row(case_id: str, file: str, found: str) -> dict[str, str]:
    """The quarantine row of a case that shows what a case of another split shows."""
    return {
        "case_id": case_id,
        "file": file,
        "reason": "duplicate",
        "expected": "a group whose pictures no group of a more held-out split has (test before val before train)",
        "found": found,
    }
