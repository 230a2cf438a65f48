"""`make docs`: docs/datasets.md, the table of all cards, from the cards themselves."""

from __future__ import annotations

import re
import sys
from pathlib import Path

from infra.storage import write_text
from preprocessing.cards import (
    ByChannel,
    ByColour,
    ByFile,
    ByValue,
    Coco,
    Contours,
    DatasetCard,
    InstanceIds,
    LabelRule,
    Outline,
    Polygons,
    RunLengths,
    Segments,
    Sprites,
    all_cards,
)

HEAD = """# Datasets

Written by `make docs` from the cards in `preprocessing/datasets/`; a test holds the two together.

*Tested on*: **real** files of the sample mirror, counted and read; a **tree** that the test generates in the
dataset's native layout (`tests/preprocessing/native/`); a **phantom** that is generated with known truth.
*Evaluation only*: an external test set of the paper; training on it is an error. A licence that reads "not
checked" must be looked up before the data is used.
"""
# What tests/preprocessing reads real files of; a test compares.
REAL = frozenset(
    {
        "BRATS2015_deepmedic", "BTCV_IMIS", "BUSI", "BiomedParseData-Demo", "CCA_ultrasound", "CHASE_DB1",
        "COVID19_CXR_segmentations", "DSB2018",
        "GlaS", "ISBI2012_EM", "ISIC2017", "Kvasir-SEG", "Kvasir-SEG_mini", "MSD_Hippocampus_udacity",
        "MedSAM2_CT_DeepLesion_npz", "OCTA_FAZ", "SAM-Med2D_demo", "Sunnybrook_SegNetCMR", "TotalSegmentator_tests",
        "WBC_segmentation", "dcmqi", "dicompyler_example_data", "elastix_lung_mha", "highdicom",
        "ivadomed_data-testing", "pyradiomics", "quirks_nibabel", "quirks_pydicom", "rt-utils_mock_data",
        "sct_testing_data", "stardist_examples",
    }
)  # fmt: skip
_COLUMNS = (
    "dataset",
    "modality",
    "layout family",
    "licence",
    "commercial",
    "evaluation only",
    "tested on",
    "layout checked in",
)
_CONTAINERS = (
    (r"nii|mha|mhd|nrrd", "volumes"),
    (r"npy|npz|h5|hdf5", "arrays"),
    (r"dcm", "DICOM"),
    (r"", "pictures"),
)


def render() -> str:
    """The whole page as Markdown."""
    cards = sorted(all_cards().values(), key=lambda card: card.name.lower())
    rows = [_row(card) for card in cards]
    counts = ", ".join(
        f"{sum(proof_of(card) == kind for card in cards)} {kind}" for kind in ("real", "tree", "phantom")
    )
    lines = [f"{len(cards)} cards: {counts}.", "", _line(_COLUMNS), _line(("---",) * len(_COLUMNS)), *rows]
    return HEAD + "\n" + "\n".join(lines) + "\n"


def proof_of(card: DatasetCard) -> str:
    """ "real", "tree" or "phantom"."""
    if card.name.startswith("Phantom_"):
        return "phantom"
    return "real" if card.name in REAL else "tree"


def family_of(card: DatasetCard) -> str:
    """What lies on disk and how the truth is coded, in a few words."""
    ending = re.sub(r"[^a-z0-9]", " ", card.layouts[0].image[-24:])
    container = next(name for pattern, name in _CONTAINERS if re.search(rf"\b({pattern})\b", ending) or not pattern)
    rules = [layout.labels or card.labels for layout in card.layouts]
    return f"{container}, {', '.join(dict.fromkeys(_code_of(rule, card) for rule in rules))}"


def _code_of(rule: LabelRule, card: DatasetCard) -> str:
    match rule:
        case Segments():
            return "DICOM-SEG"
        case Contours():
            return "RTSTRUCT"
        case Coco():
            return "COCO"
        case Polygons():
            return "outlines as coordinates"
        case Outline():
            return "outlines to fill"
        case ByChannel():
            return "a channel a structure"
        case ByColour():
            return "colour codes"
        case ByFile() if len(rule.names) > 1:
            return "a file a structure"
        case ByValue() if len(rule.values) > 1:
            return "value codes"
        case InstanceIds():
            return "instance numbers"
        case Sprites():
            return "sprites placed by a table"
        case RunLengths():
            return "run lengths in a table"
    return "a file an instance" if card.instances == "files" else "paired masks"


def _row(card: DatasetCard) -> str:
    licence = card.licence.spdx or card.licence.terms
    name = f"[{card.name}]({card.homepage})" if card.homepage else card.name
    only = "yes" if card.evaluation_only else ""
    return _line(
        (
            name,
            card.modality,
            family_of(card),
            licence,
            card.licence.commercial,
            only,
            proof_of(card),
            card.layout_checked,
        )
    )


def _line(cells: tuple[str, ...]) -> str:
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


if __name__ == "__main__":
    write_text(Path(sys.argv[1]), render())
