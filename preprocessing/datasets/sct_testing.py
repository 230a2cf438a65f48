"""Test data of the Spinal Cord Toolbox: cord and grey matter in four kinds of MR.

Source https://github.com/spinalcordtoolbox/sct_testing_data (af4c7e8), MIT, doi:10.1016/j.neuroimage.2016.10.009. t2
has permuted axes, t2s slices of 7.5 mm; both t2s volumes are of one person. The diffusion series has no label.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from preprocessing.cards import ByFile, DatasetCard, Intensity, Layout, Licence, RawCase
from preprocessing.pairing import find_cases

CARD = DatasetCard(
    name="sct_testing_data",
    title="Spinal Cord Toolbox test data",
    modality="MR",
    licence=Licence("MIT", spdx="MIT", redistribution="yes", commercial="yes"),
    citation="De Leener et al., SCT: Spinal Cord Toolbox, NeuroImage 145 (2017) 24-43",
    doi="10.1016/j.neuroimage.2016.10.009",
    homepage="https://github.com/spinalcordtoolbox/sct_testing_data",
    layout_checked="the files themselves",
    layouts=(
        Layout(
            image=r"[^/]+/(?P<case>t1w|t2|t2s|t2s_uncropped|dmri)\.nii\.gz",
            label=r"[^/]+/(?P<case>t1w|t2|t2s|t2s_uncropped)_(?P<part>seg-manual|seg|gmseg_manual)\.nii\.gz",
        ),
    ),
    labels=ByFile({"seg-manual": "spinal cord", "seg": "spinal cord", "gmseg_manual": "spinal cord grey matter"}),
    intensity=Intensity("percentile", (0.5, 99.5)),
    annotator="of the toolbox; t2s_seg is automatic",
    group=r"^(t2s|t1w|t2|dmri)",
)


def cases(root: Path) -> Iterator[RawCase]:
    """A volume of each kind with its label files."""
    return find_cases(CARD, root)
