"""Account for every file of a source: used, quarantined, or listed as no data.

The rules that refuse a case, by `reason`: unreadable, too_large, dimensions, spacing, affine_conflict,
pages, channels, intensity, unknown_label, label_kind, mask_size, mask_grid, segmentation_type,
unknown_slice, series, missing_slice, duplicate_slice, image_missing, label_missing, image_count, and
for files that belong to no case, not_on_card.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from preprocessing.cards import DatasetCard, RawCase
from preprocessing.pairing import why_not_data


@dataclass(frozen=True)
class Account:
    """Where each file of an inventory went: `used` and `refused` by case, `not_data` with why, `unclaimed`."""

    used: frozenset[str]
    refused: frozenset[str]
    not_data: dict[str, str]
    unclaimed: tuple[str, ...]

    def counts(self) -> dict[str, int]:
        """File counts; they add up to `files_found`."""
        return {
            "files_found": len(self.used) + len(self.refused) + len(self.not_data) + len(self.unclaimed),
            "files_used": len(self.used),
            "files_quarantined": len(self.refused) + len(self.unclaimed),
            "files_not_data": len(self.not_data),
        }


def account(
    card: DatasetCard, files: Iterable[str], kept: Iterable[RawCase], refused: Iterable[RawCase] = ()
) -> Account:
    """Put each file of the inventory into exactly one place; a file that a kept case used counts as used."""
    listed = set(files)
    used = frozenset(file for case in kept for file in case.files) & listed
    left_out = (frozenset(file for case in refused for file in case.files) & listed) - used
    rest = sorted(listed - used - left_out)
    reasons = {file: why_not_data(card, file) for file in rest}
    return Account(
        used=used,
        refused=left_out,
        not_data={file: why for file, why in reasons.items() if why is not None},
        unclaimed=tuple(file for file, why in reasons.items() if why is None),
    )


def unclaimed_row(shown: str) -> dict[str, str]:
    """The quarantine row of a file that no expression of the card names; it counts as a case of its own."""
    return {
        "case_id": f"file:{shown}",
        "file": shown,
        "reason": "not_on_card",
        "expected": "a file that the card names as image, label or no data",
        "found": "a name that matches none of its expressions",
    }
