"""CoNSeP: nuclei in H&E images of colorectal cancer. An external test set: never for training.

Source https://warwick.ac.uk/fac/cross_fac/tia/data/hovernet, doi:10.1016/j.media.2019.101563. MATLAB files with
`inst_map`, which numbers the nuclei; their types are not read. 41 images of 16 slides, not told by the names.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from preprocessing.cards import DatasetCard, InstanceIds, Layout, Licence, RawCase
from preprocessing.pairing import find_cases

CARD = DatasetCard(
    name="CoNSeP",
    title="CoNSeP colorectal nuclei",
    modality="histopathology",
    licence=Licence("research only, citation required; not checked further", commercial="no"),
    citation="Graham et al., HoVer-Net, Med Image Anal 58 (2019) 101563",
    doi="10.1016/j.media.2019.101563",
    homepage="https://warwick.ac.uk/fac/cross_fac/tia/data/hovernet/",
    layout_checked="Medical-SAM3 98fb4f9, inference/dataset_loaders.py",
    layouts=(
        Layout(
            image=r"(.*/)?(?P<split>Train|Test)/Images/(?P<case>[^/]+)\.png",
            label=r"(.*/)?(?P<split>Train|Test)/Labels/(?P<case>[^/]+)\.mat",
            label_key="inst_map",
        ),
    ),
    labels=InstanceIds("cell nucleus"),
    instances="values",
    searched=("cell nucleus",),
    evaluation_only=True,
    annotator="two pathologists",
    official_split={"Train": "development", "Test": "test"},
    not_data={r"(.*/)?Overlay/.*": "pictures of the same outlines"},
)


def cases(root: Path) -> Iterator[RawCase]:
    """Images with the MATLAB file of the same name."""
    return find_cases(CARD, root)
