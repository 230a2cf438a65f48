"""BraTS 2015 as DeepMedic's example: FLAIR and T1 with contrast of a glioma, already z-scored.

Source https://github.com/deepmedic/deepmedic (e10ba7c), CC BY-NC-SA 3.0, doi:10.1109/TMI.2014.2377694. Each
sequence is a case with the same truth; the patient is one group. The brain mask is automatic and no truth.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from preprocessing.cards import ByValue, DatasetCard, Intensity, Layout, Licence, RawCase
from preprocessing.pairing import find_cases, one_case_an_image

CARD = DatasetCard(
    name="BRATS2015_deepmedic",
    title="BraTS 2015, DeepMedic's example",
    modality="MR",
    licence=Licence("CC BY-NC-SA 3.0 CH", spdx="CC-BY-NC-SA-3.0", redistribution="yes", commercial="no"),
    citation="Menze et al., The multimodal brain tumor image segmentation benchmark, IEEE TMI 34 (2015) 1993-2024",
    doi="10.1109/TMI.2014.2377694",
    homepage="https://github.com/deepmedic/deepmedic",
    layout_checked="the files themselves",
    layouts=(
        Layout(
            image=r"(train|test)/(?P<case>brats_[^/]+)/(Flair|T1c|T1|T2)_[^/]+\.nii\.gz",
            label=r"(train|test)/(?P<case>brats_[^/]+)/OTMultiClass\.nii\.gz",
        ),
    ),
    labels=ByValue(
        {1: "necrotic tumor core", 2: "peritumoral edema", 3: "non-enhancing tumor core", 4: "enhancing tumor"}
    ),
    intensity=Intensity("percentile", (0.5, 99.5)),
    searched=("enhancing tumor", "necrotic tumor core", "non-enhancing tumor core", "peritumoral edema"),
    annotator="raters of BraTS",
    group=r"^(brats_\d+_pat\d+)",
    not_data={
        r"(.*/)?brainmask\.nii\.gz": "an automatic mask of the brain, no truth",
        r"(.*/)?License_[^/]+\.txt": "the licence",
    },
)


def cases(root: Path) -> Iterator[RawCase]:
    """Every sequence is a case with the same truth."""
    return one_case_an_image(find_cases(CARD, root))
