"""SIIM-ACR pneumothorax: chest X-rays as PNG with binary masks, the copy on Kaggle; or as the challenge gave them.

Source https://www.kaggle.com/datasets/vbookshelf/pneumothorax-chest-xray-images-and-masks of the SIIM-ACR
Pneumothorax Segmentation challenge. An empty mask says that a radiologist saw no pneumothorax. The part in
the file name is kept as split. The challenge's own files are DICOM, with run lengths in `train-rle.csv`: a row a
finding, `-1` for none, each start counted from the end of the run before, down the columns. Its test images have none.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from preprocessing.cards import Binary, DatasetCard, Intensity, Layout, Licence, RawCase, RunLengths
from preprocessing.pairing import find_cases

CARD = DatasetCard(
    name="Pneumothorax",
    title="SIIM-ACR pneumothorax",
    modality="X-ray",
    licence=Licence("rules of the challenge: research; not checked further", commercial="unknown"),
    citation="SIIM-ACR Pneumothorax Segmentation, Kaggle 2019; images of NIH ChestX-ray14",
    homepage="https://www.kaggle.com/c/siim-acr-pneumothorax-segmentation",
    layout_checked="torch-em 6f71247c, medical/siim_acr.py",
    layouts=(
        Layout(
            image=r"(.*/)?png_images/(?P<case>\d+_(?P<split>train|test)_[01]_)\.png",
            label=r"(.*/)?png_masks/(?P<case>\d+_(?P<split>train|test)_[01]_)\.png",
        ),
        Layout(
            image=r"(.*/)?dicom-images-train/(.*/)?(?P<case>[^/]+)\.dcm",
            label=r"(.*/)?train-rle\.csv",
            labels=RunLengths({"": "pneumothorax"}, ending=".dcm", counting="relative"),
            intensity=Intensity("voi"),
        ),
    ),
    labels=Binary("pneumothorax"),
    instances="components",
    searched=("pneumothorax",),
    annotator="radiologists of the Society of Thoracic Radiology",
    official_split={"train": "development", "test": "test"},
    not_data={
        r"(.*/)?stage_1_(train|test)_images\.csv": "a list of the same files",
        r"(.*/)?dicom-images-test/.*": "test images of the challenge, whose truth is not public",
        r"(.*/)?sample_submission\.csv": "how the challenge wanted its answers",
    },
)


def cases(root: Path) -> Iterator[RawCase]:
    """X-rays with the mask of the same name."""
    return find_cases(CARD, root)
