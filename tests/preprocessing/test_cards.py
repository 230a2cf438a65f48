"""Every card says the same kind of things about its dataset, and finds its cases in the mirror."""

from __future__ import annotations

import inspect
import re
import sys
from pathlib import Path

import pytest

from infra.errors import DataError, UsageError
from preprocessing import ontology
from preprocessing.cards import Coco, RawCase, Sprites, all_cards, cases_of, load_card
from preprocessing.check import check
from preprocessing.pairing import pair
from preprocessing.recipe import recipe_file

CARDS = sorted(all_cards())
# found, with image and label, groups
MIRRORED = {
    "MSD_Hippocampus_udacity": (149, 145, 149),
    "dcmqi": (3, 3, 2),
    "pyradiomics": (4, 2, 4),
    "CHASE_DB1": (20, 20, 10),
    "Kvasir-SEG": (5, 5, 5),
    "Kvasir-SEG_mini": (17, 17, 17),
    "BUSI": (20, 20, 20),
    "DSB2018": (27, 27, 27),
    "ISIC2017": (12, 12, 12),
    "WBC_segmentation": (71, 71, 71),
    "Sunnybrook_SegNetCMR": (44, 44, 27),
    "CCA_ultrasound": (15, 15, 4),
    "GlaS": (16, 16, 16),
    "ISBI2012_EM": (24, 24, 6),
    "OCTA_FAZ": (11, 11, 11),
    "COVID19_CXR_segmentations": (100, 24, 73),
}


@pytest.mark.parametrize("name", CARDS)
def test_a_card_is_complete(name: str) -> None:
    card = load_card(name.upper())
    assert card.name == name
    for text in (card.title, card.modality, card.licence.terms, card.citation, card.layout_checked):
        assert text
    assert card.homepage or name.startswith("Phantom_")
    for concept in card.concepts:
        assert concept == concept.lower()
        assert ontology.prompts(concept)[0] == concept
    assert set(card.searched) <= set(card.concepts)
    for layout in card.layouts:
        for pattern in (layout.image, layout.label, *layout.readings.values()):
            about_many = isinstance(layout.labels or card.labels, Coco | Sprites) and pattern == layout.label
            assert not pattern or about_many or "case" in re.compile(pattern).groupindex
    recipe = recipe_file(card)
    assert recipe == recipe_file(load_card(name))
    assert len(recipe["code_sha256"]) == 64


@pytest.mark.parametrize("name", CARDS)
def test_a_dataset_is_one_short_file_that_says_where_it_comes_from(name: str) -> None:
    module = next(
        module
        for key, module in sys.modules.items()
        if key.startswith("preprocessing.datasets.") and getattr(module, "CARD", None) == load_card(name)
    )
    source = inspect.getsource(module)
    assert module.__doc__
    assert len(source.splitlines()) <= 90
    assert callable(module.cases)


def test_an_unknown_name_gets_its_neighbours() -> None:
    with pytest.raises(UsageError, match="Did you mean Kvasir-SEG"):
        load_card("kvasir-sge")


@pytest.mark.parametrize("name", sorted(MIRRORED))
def test_the_mirror_has_the_cases(mirror: Path, name: str) -> None:
    cases: list[RawCase] = list(cases_of(load_card(name))(mirror / name))
    complete = sum(bool(case.images and case.labels) for case in cases)
    assert (len(cases), complete, len({case.group for case in cases})) == MIRRORED[name]


def test_official_archives_are_read_in_their_own_layout() -> None:
    msd = pair(
        load_card("MSD_Hippocampus_udacity"),
        [
            "Task04_Hippocampus/imagesTr/hippocampus_001.nii.gz",
            "Task04_Hippocampus/imagesTr/._hippocampus_001.nii.gz",
            "Task04_Hippocampus/labelsTr/hippocampus_001.nii.gz",
            "Task04_Hippocampus/imagesTs/hippocampus_002.nii.gz",
            "Task04_Hippocampus/dataset.json",
        ],
    )
    assert [(case.case_id, len(case.images), len(case.labels)) for case in msd] == [("hippocampus_001", 1, 1)]
    key = "0" * 64
    nuclei = pair(load_card("DSB2018"), [f"{key}/images/{key}.png", f"{key}/masks/a.png", f"{key}/masks/b.png"])
    assert [len(case.labels) for case in nuclei] == [2]
    glas = pair(load_card("GlaS"), ["train_1.bmp", "train_1_anno.bmp", "testA_2.bmp", "testA_2_anno.bmp", "Grade.csv"])
    assert [(case.case_id, case.split, case.instances) for case in glas] == [
        ("testA_2", "test", "values"),
        ("train_1", "development", "values"),
    ]
    busi = pair(
        load_card("BUSI"), ["benign/benign (1).png", "benign/benign (1)_mask.png", "benign/benign (1)_mask_1.png"]
    )
    assert [(case.case_id, len(case.labels)) for case in busi] == [("benign_1", 2)]


def test_a_check_tells_what_matched(mirror: Path) -> None:
    said = check(load_card("pyradiomics"), mirror / "pyradiomics")
    assert said["reasons"] == {"image_missing": 2}
    assert said["objects"]["brain lesion"] > 0
    assert not said["ok"]
    assert check(load_card("Kvasir-SEG"), mirror / "Kvasir-SEG", limit=2)["cases_read"] == 2
    with pytest.raises(DataError, match="folder is missing"):
        check(load_card("pyradiomics"), mirror / "no such folder")
