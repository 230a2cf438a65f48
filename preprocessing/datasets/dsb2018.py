"""DSB2018 (BBBC038): cell nuclei in fluorescence and stained light microscopy, one mask file a nucleus.

Source https://bbbc.broadinstitute.org/BBBC038, CC0 1.0, doi:10.1038/s41592-019-0612-7. RGBA images; the
official zip unpacks `<id>/images` and `<id>/masks`, the mirror keeps `stage1_train/` above. Images cut
from one larger field cannot be told apart by name. An external test set of the paper.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from preprocessing.cards import Binary, DatasetCard, Layout, Licence, Official, RawCase
from preprocessing.pairing import find_cases

CARD = DatasetCard(
    name="DSB2018",
    title="2018 Data Science Bowl nuclei (BBBC038)",
    modality="microscopy",
    licence=Licence("CC0 1.0", spdx="CC0-1.0", redistribution="yes", commercial="yes"),
    citation="Caicedo et al., Nat Methods 16 (2019) 1247-1253",
    doi="10.1038/s41592-019-0612-7",
    homepage="https://bbbc.broadinstitute.org/BBBC038",
    layout_checked="the files themselves; stage1_train.zip has no folder above the ids",
    layouts=(
        Layout(
            image=r"(stage1_train/)?(?P<case>[0-9a-f]{64})/images/[^/]+\.png",
            label=r"(stage1_train/)?(?P<case>[0-9a-f]{64})/masks/[^/]+\.png",
        ),
    ),
    labels=Binary("cell nucleus"),
    instances="files",
    searched=("cell nucleus",),
    evaluation_only=True,
    annotator="a team of biologists",
    official=Official(
        url="https://data.broadinstitute.org/bbbc/BBBC038/stage1_train.zip",
        sha256=None,
        bytes=0,
        unpack="zip",
    ),
)


def cases(root: Path) -> Iterator[RawCase]:
    """An image with all mask files of its folder, each one nucleus."""
    return find_cases(CARD, root)
