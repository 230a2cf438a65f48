"""BiomedParse's demo: seventeen pictures of eight modalities, the target in the mask's file name.

Source https://github.com/microsoft/BiomedParse (750eb40), doi:10.1038/s41592-024-02499-w; the pictures are of many
datasets with terms of their own: test use only. RGBA, padded to 1024 px; "+" is a space; targets overlap and
contain each other. A target that has no mask was not searched for.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from preprocessing.cards import ByFile, DatasetCard, Layout, Licence, RawCase
from preprocessing.pairing import find_cases

PICTURES: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    (r"01_CT_lung", "CT", ("nodule: lung nodule",)),
    (r"04_CT_liver", "CT", ("tumor: liver tumor", "vessel: hepatic vessel")),
    (r"06_CT_abdomen", "CT",
     ("adrenal gland", "aorta", "duodenum", "gallbladder", "kidney", "left adrenal gland", "left kidney", "liver",
      "pancreas", "postcava: inferior vena cava", "right adrenal gland", "right kidney", "spleen", "stomach")),
    (r"(08|1[024])_MRI(-T1-Gd)?_(heart|brain|prostate)", "MR",
     ("left heart ventricle: left ventricle blood pool", "right heart ventricle: right ventricle blood pool",
      "myocardium", "enhancing tumor", "non-enhancing tumor: non-enhancing tumor core", "tumor core: brain tumor core",
      "anterior hippocampus", "posterior hippocampus", "prostate")),
    (r"09_MRI-FLAIR_brain", "MR", ("lower-grade glioma: glioma",)),
    (r"1[56]_X-Ray_chest", "X-ray",
     ("covid-19 infection: lung infection", "lung opacity: lung infection", "left lung", "lung", "right lung")),
    (r"20_ultrasound_breast", "ultrasound", ("tumor: breast tumor",)),
    (r"2[12]_ultrasound_(heart|transperineal)", "ultrasound",
     ("left heart atrium: left atrium", "left heart ventricle: left ventricle blood pool", "fetal head",
      "public symphysis: pubic symphysis")),
    (r"23_fundus_retinal", "fundus photography", ("optic cup", "optic disc")),
    (r"24_endoscope_colon", "endoscopy", ("neoplastic polyp", "non-neoplastic polyp", "polyp")),
    (r"25_dermoscopy_skin", "dermoscopy", ("melanoma",)),
    (r"26_OCT_retinal", "OCT", ("edema: intraretinal cystoid fluid",)),
)  # fmt: skip
"""Expression for a picture's name, its modality, and "target in the mask's name: concept", or the name of both."""

CARD = DatasetCard(
    name="BiomedParseData-Demo",
    title="BiomedParse demo pictures",
    modality="mixed",
    licence=Licence("repository Apache-2.0, pictures under terms of their own: test use only", commercial="no"),
    citation="Zhao et al., A foundation model for joint segmentation across nine modalities, Nat Methods 22 (2025) 166",
    doi="10.1038/s41592-024-02499-w",
    homepage="https://github.com/microsoft/BiomedParse",
    layout_checked="the files themselves",
    layouts=tuple(
        Layout(
            image=rf"demo/(?P<case>{names})\.png",
            label=rf"demo_mask/(?P<case>{names})_(?P<part>[^/]+)\.png",
            modality=modality,
            labels=ByFile({text.split(": ")[0].replace(" ", "+"): text.split(": ")[-1] for text in targets}),
        )
        for names, modality, targets in PICTURES
    ),
    labels=ByFile({}),
    annotator="many; see the datasets that the paper lists",
    not_data={r"demo\.json": "a list of the same files"},
)


def cases(root: Path) -> Iterator[RawCase]:
    """Pictures with one mask a target."""
    return find_cases(CARD, root)
