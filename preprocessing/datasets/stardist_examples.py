"""StarDist's example: fluorescent nuclei with a 16-bit TIFF of instance numbers.

Source the package stardist 0.9.2, doi:10.1007/978-3-030-00934-2_30. The picture is of DSB2018, which is an
external test set of the paper: so this one is for evaluation only too.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from preprocessing.cards import DatasetCard, InstanceIds, Intensity, Layout, Licence, RawCase
from preprocessing.pairing import find_cases

CARD = DatasetCard(
    name="stardist_examples",
    title="StarDist example",
    modality="fluorescence microscopy",
    licence=Licence("package BSD-3-Clause, picture CC0", spdx="BSD-3-Clause", redistribution="yes", commercial="yes"),
    citation="Schmidt et al., Cell detection with star-convex polygons, MICCAI 2018",
    doi="10.1007/978-3-030-00934-2_30",
    homepage="https://github.com/stardist/stardist",
    layout_checked="the files themselves",
    layouts=(Layout(image=r"img(?P<case>2d)\.tif", label=r"mask(?P<case>2d)\.tif"),),
    labels=InstanceIds("cell nucleus"),
    intensity=Intensity("percentile", (0.5, 99.5)),
    instances="values",
    searched=("cell nucleus",),
    evaluation_only=True,
    annotator="of DSB2018",
)


def cases(root: Path) -> Iterator[RawCase]:
    """A picture with its instance numbers."""
    return find_cases(CARD, root)
