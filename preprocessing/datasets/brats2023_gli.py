"""BraTS 2023 adult glioma: four MR sequences a study with the tumour's regions.

Source https://www.synapse.org/brats, after registration; arXiv:2107.02314. Each sequence is a case with the same
truth; studies of one patient (the number before the last) are one group. 1 is necrotic core, 2 oedema, 3
enhancing; core is 1 + 3. BraTS 2021 and earlier code enhancing as 4, which is read too.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from preprocessing.cards import ByValue, DatasetCard, Intensity, Layout, Licence, RawCase
from preprocessing.pairing import find_cases, one_case_an_image

CARD = DatasetCard(
    name="BraTS2023-GLI",
    title="BraTS 2023 adult glioma",
    modality="MR",
    licence=Licence("terms of the challenge on Synapse; not checked further"),
    citation="Baid et al., BraTS 2021 benchmark, arXiv:2107.02314; Menze et al., IEEE TMI 34 (2015)",
    doi="10.1109/TMI.2014.2377694",
    homepage="https://www.synapse.org/brats",
    layout_checked="torch-em 96635280, medical/brats.py",
    layouts=(
        Layout(
            image=r"(.*/)?(?P<case>BraTS-GLI-\d+-\d+)/BraTS-GLI-\d+-\d+-(t1n|t1c|t2w|t2f)\.nii(\.gz)?",
            label=r"(.*/)?(?P<case>BraTS-GLI-\d+-\d+)/BraTS-GLI-\d+-\d+-seg\.nii(\.gz)?",
        ),
    ),
    labels=ByValue({1: "non-enhancing tumor core", 2: "peritumoral edema", 3: "enhancing tumor", 4: "enhancing tumor"}),
    intensity=Intensity("percentile", (0.5, 99.5)),
    searched=("enhancing tumor", "non-enhancing tumor core", "peritumoral edema"),
    unions=("glioma",),
    annotator="automatic, corrected by neuroradiologists",
    group=r"^(BraTS-GLI-\d+)-",
)


def cases(root: Path) -> Iterator[RawCase]:
    """Every sequence of a study is a case with the same truth."""
    return one_case_an_image(find_cases(CARD, root))
