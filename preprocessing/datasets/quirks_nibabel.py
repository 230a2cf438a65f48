"""nibabel's reader tests: 4D NIfTI, NIfTI-2, a header without voxels, a cut PAR header. Nothing is labelled.

Source the package nibabel 5.4.2 (nibabel/tests/data), MIT. No file can be learned from: all are quarantined.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from preprocessing.cards import ByValue, DatasetCard, Layout, Licence, RawCase
from preprocessing.pairing import find_cases

CARD = DatasetCard(
    name="quirks_nibabel",
    title="nibabel's reader tests",
    modality="mixed",
    licence=Licence("MIT", spdx="MIT", redistribution="yes", commercial="yes"),
    citation="Brett et al., nibabel, doi:10.5281/zenodo.591597",
    homepage="https://nipy.org/nibabel/",
    layout_checked="the files themselves",
    layouts=(Layout(image=r"(?P<case>[^/]+)\.(hdr|nii(\.gz)?|PAR)"),),
    labels=ByValue({}),
)


def cases(root: Path) -> Iterator[RawCase]:
    """Files without labels, and labels without images."""
    return find_cases(CARD, root)
