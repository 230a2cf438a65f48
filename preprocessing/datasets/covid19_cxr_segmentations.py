"""COVID-19 chest X-rays with lungs, heart, airways and findings, as sprites that a table places.

Source https://github.com/GeneralBlockchain/covid-19-chest-xray-segmentations-dataset (377a494), annotations CC BY
4.0; the pictures have licences of their own in metadata.csv. structure.csv names all pictures of the release: those
that are not there are quarantined. Tubes and lines are often named without a mask, so they are left out. The
patient is in metadata.csv.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from preprocessing.cards import DatasetCard, Layout, Licence, RawCase, Sprites
from preprocessing.pairing import find_cases

CARD = DatasetCard(
    name="COVID19_CXR_segmentations",
    title="COVID-19 chest X-ray segmentations",
    modality="X-ray",
    licence=Licence(
        "annotations CC BY 4.0; pictures under licences of their own, many CC BY-NC-SA", redistribution="unknown",
        commercial="no",
    ),
    citation="General Blockchain Inc. 2020; pictures: Cohen et al., COVID-19 Image Data Collection, arXiv:2003.11597",
    homepage="https://github.com/GeneralBlockchain/covid-19-chest-xray-segmentations-dataset",
    layout_checked="the files themselves",
    layouts=(Layout(image=r"images/(?P<case>.+)\.(jpg|jpeg|png)", label=r"structure\.csv"),),
    labels=Sprites(
        {"airways": "airway", "cardiomediastinum": "cardiomediastinum", "left lung": "left lung",
         "right lung": "right lung", "ground glass opacities": "ground glass opacity",
         "consolidation": "lung consolidation", "pneumothorax": "pneumothorax"},
        ignore=("monitoring probes", "nosogastric tube", "tubings", "endotracheal tube", "central venous line"),
        image="Filename", mask="Mask", label="Template Name", left="Left", top="Top",
    ),
    annotator="not named by the source",
    not_data={r"metadata\.csv": "patients and licences; its patient numbers are the groups"},
)  # fmt: skip


def cases(root: Path) -> Iterator[RawCase]:
    """Pictures with their sprites, grouped by the patient of metadata.csv."""
    patients: dict[str, str] = {}
    if (root / "metadata.csv").is_file():
        with (root / "metadata.csv").open(encoding="utf-8-sig", newline="") as handle:
            patients = {row["filename"]: row["patientid"] for row in csv.DictReader(handle)}
    for case in find_cases(CARD, root):
        name = Path(case.images[0]).name if case.images else dict(case.parts).get(case.labels[0], "")
        yield replace(case, group=f"patient {patients[name]}" if patients.get(name) else case.group)
