"""PROMISE12: the prostate in T2 MR, MetaImage with the voxels in a file beside the header.

Source doi:10.5281/zenodo.8026660, doi:10.1016/j.media.2013.12.002. Four centres; only the training cases have
labels. The `.raw` file beside a header is a part of the case: a change of it is a change of the case.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from preprocessing.cards import ByValue, DatasetCard, Intensity, Layout, Licence, RawCase
from preprocessing.pairing import find_cases

CARD = DatasetCard(
    name="PROMISE12",
    title="PROMISE12 prostate",
    modality="MR",
    licence=Licence("research; not checked further"),
    citation="Litjens et al., Evaluation of prostate segmentation algorithms, Med Image Anal 18 (2014) 359-373",
    doi="10.1016/j.media.2013.12.002",
    homepage="https://zenodo.org/records/8026660",
    layout_checked="torch-em 641e2dae, medical/promise12.py",
    layouts=(
        Layout(
            image=r"(.*/)?(?P<case>Case\d+)\.mhd",
            label=r"(.*/)?(?P<case>Case\d+)_segmentation\.mhd",
            beside=r"(.*/)?(?P<case>Case\d+)(_segmentation)?\.z?raw",
        ),
    ),
    labels=ByValue({1: "prostate"}),
    intensity=Intensity("percentile", (0.5, 99.5)),
    searched=("prostate",),
    annotator="experienced readers of each centre",
    not_data={r"(.*/)?(test_data|livechallenge_test_data)/.*": "test cases of the challenge, without labels"},
)


def cases(root: Path) -> Iterator[RawCase]:
    """Headers with the segmentation of the same number."""
    return find_cases(CARD, root)
