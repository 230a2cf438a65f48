"""Test data of TotalSegmentator: CT and MR with the tool's own labels, a DICOM series without endings among them.

Source https://github.com/wasserth/TotalSegmentator (0e65a44, tests/reference_files), data CC BY 4.0,
doi:10.1148/ryai.230024. Pseudo-labels: a model made them. Label ids of v2; the heart of the pulmonary report is
on another grid than its CT and refuses that case.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from preprocessing.cards import DatasetCard, Intensity, Layout, Licence, RawCase
from preprocessing.datasets._totalsegmentator import CT, MR, by_file, by_value
from preprocessing.pairing import find_cases

CARD = DatasetCard(
    name="TotalSegmentator_tests",
    title="TotalSegmentator test data",
    modality="CT",
    licence=Licence("tool Apache-2.0, data CC BY 4.0", spdx="CC-BY-4.0", redistribution="yes", commercial="yes"),
    citation="Wasserthal et al., TotalSegmentator, Radiol Artif Intell 5 (2023) e230024",
    doi="10.1148/ryai.230024",
    homepage="https://github.com/wasserth/TotalSegmentator",
    layout_checked="the files themselves; label ids in the tool's map_to_binary.py",
    layouts=(
        Layout(image=r"(?P<case>example)_ct_sm\.nii\.gz", label=r"(?P<case>example)_seg\.nii\.gz"),
        Layout(
            image=r"(?P<case>example)_(?P<within>mr)_sm\.nii\.gz",
            label=r"(?P<case>example)_seg_(?P<within>mr)\.nii\.gz",
            labels=by_value(MR),
            modality="MR",
            intensity=Intensity("percentile", (0.5, 99.5)),
        ),
        Layout(
            image=r"(?P<case>example)_ct_(?P<within>dicom)/CT\.[0-9.]+",
            label=r"(?P<case>example)_seg_(?P<within>dicom)\.nii\.gz",
        ),
        Layout(
            image=r"(?P<case>pulmonary_report)/models/ct_cropped\.nii\.gz",
            label=r"(?P<case>pulmonary_report)/models/(?P<part>heart|pulmonary_artery)\.nii\.gz",
            labels=by_file(("heart", "pulmonary_artery")),
        ),
    ),
    labels=by_value(CT),
    intensity=Intensity("window", (-160.0, 240.0)),
    annotator="TotalSegmentator itself",
    not_data={r"example_seg_fast/.*": "the same organs once more, by the faster model"},
)


def cases(root: Path) -> Iterator[RawCase]:
    """Volumes with their label volumes; the series by its folder."""
    return find_cases(CARD, root)
