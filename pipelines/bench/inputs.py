"""What is measured: real files of the mirror, repeated or enlarged in a scratch folder, and their pairs."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from infra.errors import DataError
from preprocessing.cards import ByValue, DatasetCard, Intensity, Layout, Licence, cases_of, load_card

TINY = "MSD_Hippocampus_udacity"
FLAT = (
    "BUSI",
    "CCA_ultrasound",
    "CHASE_DB1",
    "DSB2018",
    "GlaS",
    "ISIC2017",
    "Kvasir-SEG",
    "Kvasir-SEG_mini",
    "WBC_segmentation",
)
FLAT_COPIES = 3
LARGE_COPIES = 2
# image, label, factor by which rows and columns are interpolated
LARGE = (
    ("TotalSegmentator_tests/example_ct_sm.nii.gz", "TotalSegmentator_tests/example_seg.nii.gz", 4),
    ("TotalSegmentator_tests/example_mr_sm.nii.gz", "TotalSegmentator_tests/example_seg_mr.nii.gz", 4),
    (
        "ivadomed_data-testing/ct_scan/sub-spleen2/ct/sub-spleen2_ct.nii.gz",
        "ivadomed_data-testing/ct_scan/derivatives/labels/sub-spleen2/ct/sub-spleen2_ct_seg-manual.nii.gz",
        3,
    ),
    (
        "BRATS2015_deepmedic/train/brats_2013_pat0006_1/Flair_subtrMeanDivStd.nii.gz",
        "BRATS2015_deepmedic/train/brats_2013_pat0006_1/OTMultiClass.nii.gz",
        2,
    ),
    (
        "BRATS2015_deepmedic/train/brats_2013_pat0006_1/T1c_subtrMeanDivStd.nii.gz",
        "BRATS2015_deepmedic/train/brats_2013_pat0006_1/OTMultiClass.nii.gz",
        2,
    ),
)
_CONCEPTS = (
    "liver",
    "lesion",
    "hippocampus",
    "polyp",
    "brain lesion",
    "lung nodule",
)  # names; labels are folded on them


@dataclass(frozen=True)
class Part:
    """One dataset of a suite."""

    card: DatasetCard
    root: Path

    def pairs(self) -> list[dict[str, Any]]:
        """Cases as the peers get them: {"id", "image", "labels"} with absolute paths; orphans are left out."""
        return [
            {
                "id": f"{self.card.name}_{case.case_id}",
                "image": str(self.root / case.images[0]),
                "labels": [str(self.root / file) for file in case.labels],
            }
            for case in cases_of(self.card)(self.root)
            if case.images and case.labels
        ]


@dataclass(frozen=True)
class Suite:
    """Datasets that are measured as one; `kind` is what the peers call it, `side_px` the input that they resize to."""

    name: str
    title: str
    kind: str
    side_px: int
    parts: tuple[Part, ...]


def suites(mirror: Path, scratch: Path, peer_python: Path) -> list[Suite]:
    """The three suites, their scratch files written; DataError where the mirror lacks a dataset."""
    missing = [name for name in (TINY, *FLAT, *sorted({image.split("/")[0] for image, _, _ in LARGE})) if
               not (mirror / name).is_dir()]  # fmt: skip
    if missing:
        msg = f"{mirror}: expected the sample datasets, found no {', '.join(missing)}. Set SEGFOUNDRY_MIRROR"
        raise DataError(msg)
    flat = tuple(repeated(load_card(name), mirror / name, scratch / "flat" / name, FLAT_COPIES) for name in FLAT)
    tiny = Part(load_card(TINY), mirror / TINY)
    large = enlarged(mirror, scratch / "large", peer_python)
    return [
        Suite("tiny", "small NIfTI volumes, about 35 × 50 pixels a slice", "volume", 256, (tiny,)),
        Suite("large", "larger NIfTI volumes, 360 to 500 pixels a side", "volume", 512, (large,)),
        Suite("flat", "2D images, 256 to 3,000 pixels a side", "picture", 512, flat),
    ]


def repeated(card: DatasetCard, source: Path, target: Path, copies: int) -> Part:
    """`copies` of every whole case of a dataset in its own layout, and its card, which allows a copy's number."""
    shutil.rmtree(target, ignore_errors=True)
    # copies are one group: in several splits they would be quarantined as duplicates of each other
    group = card.group or r"^(.*?)(?:-copy[0-9]+)?$"
    loose = replace(card, layouts=tuple(_loosened(layout) for layout in card.layouts), group=group)
    cases = [case for case in cases_of(card)(source) if case.images and case.labels]
    for case in cases:
        for file in case.files:
            for copy in range(copies):
                to = target / _renamed(card, file, f"-copy{copy}")
                to.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(source / file, to)
    part = Part(loose, target)
    if len(part.pairs()) != copies * len(cases):
        msg = f"{card.name}: expected {copies * len(cases)} cases in {target}, the card finds {len(part.pairs())}"
        raise DataError(msg)
    return part


def _loosened(layout: Layout) -> Layout:
    """The layout with case names that may end in a copy's number."""
    return replace(
        layout,
        image=_with_copies(layout.image),
        label=_with_copies(layout.label),
        readings={name: _with_copies(pattern) for name, pattern in layout.readings.items()},
    )


def _with_copies(pattern: str) -> str:
    """The expression with an optional copy's number before the end of its group `case`."""
    at = pattern.find("(?P<case>")
    depth, inside = 0, False  # inside a set of characters, where parentheses mean themselves
    while 0 <= at < len(pattern):
        character = pattern[at]
        if character == "\\":
            at += 1
        elif inside:
            inside = character != "]"
        elif character == "[":
            inside = True
        else:
            depth += {"(": 1, ")": -1}.get(character, 0)
            if depth == 0:
                return f"{pattern[:at]}(-copy[0-9]+)?{pattern[at:]}"
        at += 1
    return pattern


def _renamed(card: DatasetCard, file: str, suffix: str) -> str:
    """`file` with `suffix` after its case name."""
    for layout in card.layouts:
        for pattern in (layout.image, layout.label, *layout.readings.values()):
            match = re.fullmatch(pattern, file) if pattern else None
            if match:
                at = match.end("case")
                return file[:at] + suffix + file[at:]
    msg = f"{card.name}: no expression of the card names {file}"
    raise DataError(msg)


def enlarged(mirror: Path, target: Path, peer_python: Path) -> Part:
    """The volumes of `LARGE`, interpolated; written by SimpleITK in the peers' environment, once."""
    shutil.rmtree(target, ignore_errors=True)
    for folder in ("images", "labels"):
        (target / folder).mkdir(parents=True)
    jobs = []
    # sequences of one patient share their label; in two splits they would be quarantined as duplicates
    patients = list(dict.fromkeys(label for _, label, _ in LARGE))
    for number, (image, label, factor) in enumerate(LARGE):
        case = f"patient{patients.index(label)}_{number}-0"
        jobs.append(
            {
                "image": str(mirror / image),
                "label": str(mirror / label),
                "factor": factor,
                "classes": len(_CONCEPTS),
                "out_image": str(target / f"images/{case}.nii.gz"),
                "out_label": str(target / f"labels/{case}.nii.gz"),
            }
        )
    script = Path(__file__).parent / "peers" / "enlarge.py"
    lines = "".join(json.dumps(job) + "\n" for job in jobs)
    subprocess.run([str(peer_python), str(script)], input=lines, text=True, check=True, stdout=subprocess.DEVNULL)
    for path in sorted(target.rglob("patient*-0.nii.gz")):
        for copy in range(1, LARGE_COPIES):
            shutil.copyfile(path, path.with_name(path.name.replace("-0.", f"-{copy}.")))
    return Part(LARGE_CARD, target)


LARGE_CARD = DatasetCard(
    name="bench_large",
    title="Enlarged volumes of several public sets",
    modality="CT",
    licence=Licence("the terms of the sets they come from; never leaves this machine"),
    citation="see SOURCES.csv of the mirror",
    homepage="",
    layout_checked="made here",
    layouts=(Layout(image=r"images/(?P<case>[^/]+)\.nii\.gz", label=r"labels/(?P<case>[^/]+)\.nii\.gz"),),
    labels=ByValue(dict(enumerate(_CONCEPTS, start=1))),
    intensity=Intensity("percentile", (0.5, 99.5)),
    searched=_CONCEPTS,
    group=r"^(patient\d+)",
)
