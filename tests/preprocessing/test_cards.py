"""Every card says the same kind of things about its dataset, and finds its cases in the mirror."""

from __future__ import annotations

import csv
import inspect
import re
import sys
from pathlib import Path

import pytest

from infra.errors import DataError, UsageError
from preprocessing import ontology
from preprocessing.cards import ABOUT_MANY, RawCase, all_cards, cases_of, load_card
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
    "BRATS2015_deepmedic": (2, 2, 1),
    "BTCV_IMIS": (36, 34, 19),
    "COVID19_CXR_segmentations": (100, 24, 73),
    "BiomedParseData-Demo": (17, 17, 17),
    "MedSAM2_CT_DeepLesion_npz": (1, 1, 1),
    "SAM-Med2D_demo": (5, 4, 5),
    "TotalSegmentator_tests": (4, 4, 4),
    "dicompyler_example_data": (1, 1, 1),
    "elastix_lung_mha": (2, 1, 1),
    "highdicom": (9, 4, 3),
    "ivadomed_data-testing": (22, 8, 6),
    "quirks_nibabel": (6, 0, 6),
    "quirks_pydicom": (13, 0, 13),
    "rt-utils_mock_data": (4, 3, 2),
    "sct_testing_data": (5, 4, 4),
    "stardist_examples": (1, 1, 1),
}
# why fewer images are read than SOURCES.csv counts
COUNTED_OTHERWISE = {
    "MSD_Hippocampus_udacity": "its count is a sentence",
    "dcmqi": "two of its images are the same pixels once more, as enhanced CT",
    "pyradiomics": "the prostate phantom is an object, not a patient",
    "highdicom": "two of its slide images say that they are one series",
    "quirks_pydicom": "two of its files are a SEG and an RTSTRUCT",
}
# reason -> cases that must be refused for it, read to the last voxel; every other case is kept
REFUSED = {
    "BRATS2015_deepmedic": {},
    "BTCV_IMIS": {"label_missing": 2},
    "BiomedParseData-Demo": {},
    "MedSAM2_CT_DeepLesion_npz": {},
    "SAM-Med2D_demo": {"label_missing": 1},
    "dicompyler_example_data": {},
    "elastix_lung_mha": {"image_missing": 1},
    "highdicom": {"image_kind": 3, "image_missing": 4, "label_missing": 1},
    "quirks_nibabel": {"label_missing": 6},
    "quirks_pydicom": {"image_missing": 2, "label_missing": 11},
    "rt-utils_mock_data": {"label_missing": 1, "unknown_slice": 2},
    "sct_testing_data": {"label_missing": 1},
    "stardist_examples": {},
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
            about_many = isinstance(layout.labels or card.labels, ABOUT_MANY) and pattern == layout.label
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


@pytest.mark.parametrize("name", sorted(set(MIRRORED) - set(COUNTED_OTHERWISE)))
def test_the_images_are_as_many_as_the_mirror_says(mirror: Path, name: str) -> None:
    with (mirror / "SOURCES.csv").open(encoding="utf-8", newline="") as handle:
        counted = {row["dataset"]: row["n_images"] for row in csv.DictReader(handle)}
    series = {case.images for case in cases_of(load_card(name))(mirror / name) if case.images}
    assert len(series) == int(counted[name])


@pytest.mark.parametrize("name", sorted(REFUSED))
def test_every_file_of_a_sample_is_kept_refused_or_no_data(mirror: Path, name: str) -> None:
    said = check(load_card(name), mirror / name)
    assert said["reasons"] == REFUSED[name]
    assert said["unmatched"] == []
    assert said["cases_kept"] == said["cases_found"] - sum(REFUSED[name].values())


def test_the_external_sets_of_the_paper_are_for_evaluation_only() -> None:
    external = {
        "TN3K", "HC18", "CVC-ClinicDB", "ETIS-Larib", "PH2", "CHASE_DB1", "STARE", "DDTI", "TG3K", "DSB2018", "CoNSeP",
    }  # fmt: skip
    marked = {name for name in CARDS if load_card(name).evaluation_only}
    assert marked == {*external, "stardist_examples"}  # which is a picture of DSB2018


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
