"""Intraretinal Cystoid Fluid: cystoid macular oedema in OCT of patients with diabetes.

Source https://www.kaggle.com/datasets/zeeshanahmed13/intraretinal-cystoid-fluid, doi:10.1002/ima.22662. A folder
a B-scan with `images/` and `masks/`; one folder has a stray second mask and is quarantined if its size or kind
tells. Patients are not in the names.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from preprocessing.cards import Binary, DatasetCard, Layout, Licence, RawCase
from preprocessing.pairing import find_cases

CARD = DatasetCard(
    name="IntraretinalCystoidFluid",
    title="Intraretinal cystoid fluid in OCT",
    modality="OCT",
    licence=Licence("not stated; not checked"),
    citation="Intraretinal cystoid fluid in OCT, Int J Imaging Syst Technol (2022), doi:10.1002/ima.22662",
    doi="10.1002/ima.22662",
    homepage="https://www.kaggle.com/datasets/zeeshanahmed13/intraretinal-cystoid-fluid",
    layout_checked="torch-em 246d59de, medical/intraretinal_cystoid_fluid.py",
    layouts=(
        Layout(
            image=r"(2021-training-data-ZA/)*(?P<case>[^/]+)/images/[^/]+\.(png|jpe?g|tif)",
            label=r"(2021-training-data-ZA/)*(?P<case>[^/]+)/masks/(?!MASK-)[^/]+\.(png|jpe?g|tif)",
        ),
    ),
    labels=Binary("intraretinal cystoid fluid"),
    instances="components",
    searched=("intraretinal cystoid fluid",),
    annotator="ophthalmologists",
    not_data={
        r"(.*/)?masks/MASK-[^/]+": "a stray mask of another B-scan",
        r"(.*/)?[^/]+\.pickle": "the same pictures as a Python object, which is not opened",
    },
)


def cases(root: Path) -> Iterator[RawCase]:
    """A folder a B-scan, with its image and mask."""
    return find_cases(CARD, root)
