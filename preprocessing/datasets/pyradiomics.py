"""Test cases of pyradiomics: a brain and a breast lesion in MRI, a prostate phantom, lung labels without CT.

Source https://github.com/AIM-Harvard/pyradiomics (data/), BSD-3-Clause, doi:10.1158/0008-5472.CAN-17-0339.
NRRD with flipped directions and 6.5 mm slices. The two lung CTs are missing here: their labels are
quarantined. The prostate phantom is an object, not a patient, and its labels 1, 7, 8, 9 have no
published names: it is listed as no data.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from preprocessing.cards import ByValue, DatasetCard, Intensity, Layout, Licence, RawCase
from preprocessing.pairing import find_cases

CARD = DatasetCard(
    name="pyradiomics",
    title="pyradiomics test cases",
    modality="MR",
    licence=Licence("BSD-3-Clause", spdx="BSD-3-Clause", redistribution="yes", commercial="yes"),
    citation="van Griethuysen et al., Computational Radiomics System, Cancer Res 77 (2017) e104",
    doi="10.1158/0008-5472.CAN-17-0339",
    homepage="https://github.com/AIM-Harvard/pyradiomics",
    layout_checked="the repository's data folder",
    layouts=(
        Layout(
            image=r"(data/)?(?P<case>brain\d+)_image\.nrrd",
            label=r"(data/)?(?P<case>brain\d+)_label\.nrrd",
        ),
        Layout(
            image=r"(data/)?(?P<case>breast\d+)_image\.nrrd",
            label=r"(data/)?(?P<case>breast\d+)_label\.nrrd",
            labels=ByValue({1: "breast lesion"}),
        ),
        Layout(
            image=r"(data/)?(?P<case>lung\d+)_image\.nrrd",
            label=r"(data/)?(?P<case>lung\d+)_label\.nrrd",
            labels=ByValue({1: "lung nodule"}),
        ),
    ),
    labels=ByValue({1: "brain lesion"}),
    intensity=Intensity("percentile", (0.5, 99.5)),
    instances="components",
    annotator="authors of pyradiomics",
    not_data={r"(data/)?prostate_phantom_subvolume(-label)?\.nrrd": "a phantom with labels of no published meaning"},
)


def cases(root: Path) -> Iterator[RawCase]:
    """Image and label by name; the labels without an image are orphans."""
    return find_cases(CARD, root)
