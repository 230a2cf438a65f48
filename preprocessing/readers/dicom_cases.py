"""Which DICOM files belong together: images by series, SEGs and RTSTRUCTs by the series that they reference."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from infra.errors import CaseError
from infra.storage import sha256_bytes
from preprocessing.cards import DatasetCard, RawCase
from preprocessing.expressions import compiled
from preprocessing.pairing import clean_id, files_below, group_of, why_not_data
from preprocessing.readers import DECODER_ERRORS
from preprocessing.readers.dicom_file import read_header

_TAGS = [
    "SeriesInstanceUID", "FrameOfReferenceUID", "PatientID", "SOPClassUID",
    "ReferencedSeriesSequence", "ReferencedFrameOfReferenceSequence",
]  # fmt: skip


@dataclass
class _Found:
    """Files by what names their series: its UID, or for an unreadable file its own folder."""

    series: dict[str, list[str]] = field(default_factory=dict)
    labels: dict[str, list[str]] = field(default_factory=dict)
    patients: dict[str, str] = field(default_factory=dict)
    frames: dict[str, set[str]] = field(default_factory=dict)  # frame of reference -> series in it


def find_dicom_cases(card: DatasetCard, root: Path) -> Iterator[RawCase]:
    """Series below `root` (the card's image expressions) with the labels (label expressions) that reference them.

    A label that names no series belongs to the only series in its frame of reference. The group is the
    patient id. A file without a readable header is a case of its own folder, so that it reaches quarantine
    with its reason. A case is named by its folder; where several series share one, a hash of the UID tells
    them apart.
    """
    found = _Found()
    claims: list[tuple[str, list[str], str]] = []
    for file in files_below(root):
        is_image = any(compiled(layout.image).fullmatch(file) for layout in card.layouts)
        is_label = any(layout.label and compiled(layout.label).fullmatch(file) for layout in card.layouts)
        if why_not_data(card, file) or not (is_image or is_label):
            continue
        try:
            header = read_header(root / file, _TAGS)
            uid = str(header.get("SeriesInstanceUID") or f"file:{file}")
            named, place = ([], "") if is_image else _references(header)
            patient = str(header.get("PatientID") or "")
        except (CaseError, *DECODER_ERRORS):
            uid, named, place, patient = f"folder:{Path(file).parent}", [], "", ""
            (found.series if is_image else found.labels).setdefault(uid, []).append(file)
            continue
        if is_image:
            found.series.setdefault(uid, []).append(file)
            found.frames.setdefault(str(header.get("FrameOfReferenceUID") or uid), set()).add(uid)
            found.patients.setdefault(uid, patient)
        else:
            claims.append((file, named, place))
            found.patients.setdefault(f"label:{file}", patient)
    for file, named, place in claims:
        uid = _goal(found, file, named, place)
        found.labels.setdefault(uid, []).append(file)
        found.patients.setdefault(uid, found.patients[f"label:{file}"])
    yield from _cases(card, found)


def _cases(card: DatasetCard, found: _Found) -> list[RawCase]:
    homes = {}
    for uid in {*found.series, *found.labels}:
        images, labels = found.series.get(uid, []), found.labels.get(uid, [])
        home = str(Path(images[0]).parent) if images else str(Path(labels[0]).with_suffix(""))
        homes[uid] = clean_id(home).strip(".") or "series"  # files in the root itself have no folder to be named by
    shared = Counter(homes.values())
    cases = []
    for uid, home in homes.items():
        mark = sha256_bytes(uid.encode())[:8]
        case_id = home if home.strip(".") and shared[home] < 2 else f"{home}-{mark}".strip("-.")
        group = found.patients.get(uid) or group_of(card, case_id)
        cases.append(RawCase(case_id, group, tuple(found.series.get(uid, [])), tuple(found.labels.get(uid, []))))
    return sorted(cases, key=lambda case: case.case_id)


def _goal(found: _Found, file: str, named: list[str], place: str) -> str:
    """The series that a label belongs to: one that it names and that is there, else the only one in its frame."""
    for uid in named:
        if uid in found.series:
            return uid
    inside = found.frames.get(place, set())
    if not named and len(inside) == 1:
        return next(iter(inside))
    return named[0] if named else f"file:{file}"


def _references(header: Any) -> tuple[list[str], str]:
    """The series that a SEG or an RTSTRUCT names, and its frame of reference."""
    named = [str(item.SeriesInstanceUID) for item in header.get("ReferencedSeriesSequence") or []]
    place = str(header.get("FrameOfReferenceUID") or "")
    for frame in header.get("ReferencedFrameOfReferenceSequence") or []:
        place = place or str(frame.get("FrameOfReferenceUID") or "")
        for study in frame.get("RTReferencedStudySequence") or []:
            for series in study.get("RTReferencedSeriesSequence") or []:
                named.append(str(series.SeriesInstanceUID))
    return named, place
