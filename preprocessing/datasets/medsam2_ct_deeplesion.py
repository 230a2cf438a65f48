"""MedSAM2's CT of DeepLesion: a lesion in an NPZ with image, mask and geometry, 8-bit after windowing.

Source https://github.com/bowang-lab/MedSAM2 (332f30d), arXiv:2504.03600, doi:10.1117/1.JMI.5.3.036501. The mask is
a model's, revised by people. The patient is the first number of a name. One lesion was marked, others may be there.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from preprocessing.cards import ByValue, DatasetCard, Layout, Licence, RawCase
from preprocessing.pairing import find_cases

CARD = DatasetCard(
    name="MedSAM2_CT_DeepLesion_npz",
    title="MedSAM2 CT DeepLesion",
    modality="CT",
    licence=Licence("repository Apache-2.0; annotations non-commercial by the dataset card", commercial="no"),
    citation="Ma et al., MedSAM2, arXiv:2504.03600; Yan et al., DeepLesion, J Med Imaging 5 (2018) 036501",
    doi="10.48550/arXiv.2504.03600",
    homepage="https://github.com/bowang-lab/MedSAM2",
    layout_checked="the files themselves",
    layouts=(
        Layout(
            image=r"(?P<case>CT_Lesion_\d+_\d+_\d+_\d+-\d+)\.npz",
            image_key="imgs",
            label_key="gts",
            axes="zyx",
            geometry_keys={"spacing": "spacing", "origin": "origin", "direction": "direction"},
        ),
    ),
    labels=ByValue({1: "lesion"}),
    annotator="a model, revised by people",
    group=r"^CT_Lesion_(\d+)_",
)


def cases(root: Path) -> Iterator[RawCase]:
    """A file a lesion, with image and mask."""
    return find_cases(CARD, root)
