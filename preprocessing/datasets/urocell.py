"""UroCell: compartments of mouse bladder cells in FIB-SEM, one label volume a compartment.

Source https://github.com/MancaZerovnikMekuc/UroCell, doi:10.1016/j.compbiomed.2020.103693, CC BY-NC-SA 4.0. All
sub-volumes are of one cell layer. Golgi is taken where it is precise; its rough regions are no truth. A
compartment without a file for a sub-volume is unknown there.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from preprocessing.cards import ByFile, DatasetCard, Intensity, Layout, Licence, RawCase
from preprocessing.pairing import find_cases

CARD = DatasetCard(
    name="UroCell",
    title="UroCell intracellular compartments",
    modality="electron microscopy",
    licence=Licence("CC BY-NC-SA 4.0", spdx="CC-BY-NC-SA-4.0", redistribution="yes", commercial="no"),
    citation="Zerovnik Mekuc et al., Automatic segmentation of mitochondria, Comput Biol Med 119 (2020) 103693",
    doi="10.1016/j.compbiomed.2020.103693",
    homepage="https://github.com/MancaZerovnikMekuc/UroCell",
    layout_checked="the repository's README and file list; torch-em 6f71247c. fv as fusiform vesicles: remembered",
    layouts=(
        Layout(
            image=r"(.*/)?data/(?P<case>fib1[^/]*)\.nii\.gz",
            label=r"(.*/)?(?P<part>(mito|lyso|fv)/instance|golgi/precise)/(?P<case>fib1[^/]*)\.nii\.gz",
        ),
    ),
    labels=ByFile(
        {
            "mito/instance": "mitochondrion",
            "lyso/instance": "lysosome",
            "fv/instance": "fusiform vesicle",
            "golgi/precise": "golgi apparatus",
        }
    ),
    intensity=Intensity("percentile", (0.5, 99.5)),
    instances="components",
    annotator="annotators of the authors, revised by biologists",
    not_data={
        r"(.*/)?(mito|lyso|fv|golgi)/(binary|approximate)/.*": "the same or rougher regions",
        r"(.*/)?[^/]+/mesh/.*": "surfaces of the same objects",
        r"(.*/)?[^/]+\.png": "pictures of the README",
    },
)


def cases(root: Path) -> Iterator[RawCase]:
    """Sub-volumes with one label volume a compartment."""
    return find_cases(CARD, root)
