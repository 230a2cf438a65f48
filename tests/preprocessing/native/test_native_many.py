"""Datasets whose files hold many images: ARCADE in COCO, PanNuke in NPY, in their native layout."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from preprocessing.cards import cases_of, load_card
from preprocessing.pairing import files_below
from preprocessing.quality import account
from tests.preprocessing.made import mask, masks, pixels
from tests.preprocessing.native.test_native import read
from tests.preprocessing.native.writers import save

RNG = np.random.default_rng(5)


def test_arcade_keeps_its_tasks_and_parts_apart(tmp_path: Path) -> None:
    card = load_card("ARCADE")
    for task, part, name in (("syntax", "train", "9a"), ("stenosis", "test", "stenosis")):
        home = tmp_path / "arcade" / task / part
        for number in (1, 2, 3, 4):  # 3 is in no list, 4 is listed with another size
            save(home / "images" / f"{number}.png", RNG.integers(0, 200, (40, 50)).astype(np.uint8))
        content = {
            "images": [
                {"id": number, "file_name": f"{number}.png", "height": 40 if number < 4 else 80, "width": 50}
                for number in (1, 2, 4)
            ],
            "categories": [{"id": 7, "name": name}],
            "annotations": [
                {
                    "id": x, "image_id": image, "category_id": 7, "iscrowd": 0,
                    "segmentation": [[x, 8, x + 6, 8, x + 6, 20, x, 20]],
                }
                for image, x in ((1, 4), (1, 20), (4, 4))
            ],
        }  # fmt: skip
        (home / "annotations").mkdir()
        (home / "annotations" / f"{part}.json").write_text(json.dumps(content), encoding="utf-8")

    cases = list(cases_of(card)(tmp_path))
    results = read(card, cases, tmp_path)
    refused = {case_id: result.refusal["reason"] for case_id, result in results.items() if result.refusal}
    kept = sorted(set(results) - set(refused))
    assert kept == ["stenosis_test_images_1", "syntax_train_images_1"]
    assert sorted(refused.values()) == sorted(2 * ["empty_label", "label_missing", "mask_size"])  # 2 is without outline
    for home, concept in (("syntax_train", "coronary artery segment"), ("stenosis_test", "coronary stenosis")):
        (row,) = results[f"{home}_images_1"].rows
        drawn = np.zeros((40, 50), dtype=bool)
        drawn[8:20, 4:10] = drawn[8:20, 20:26] = True
        assert np.array_equal(mask(row, concept), drawn)
        assert len(masks(row, concept)) == 2
    assert {case.split for case in cases if case.case_id.startswith("stenosis")} == {"test"}
    assert {case.split for case in cases if case.case_id.startswith("syntax")} == {"train"}
    assert account(card, files_below(tmp_path), cases).unclaimed == ()


def test_pannuke_numbers_its_nuclei_and_keeps_folds_apart(tmp_path: Path) -> None:
    card = load_card("PanNuke")
    labels, images = {}, {}
    for fold in (1, 2, 3):
        home = tmp_path / f"Fold {fold}"
        images[fold] = RNG.integers(0, 256, (2, 16, 16, 3)).astype(np.float64)
        labels[fold] = np.zeros((2, 16, 16, 6))
        labels[fold][0, 2:6, 2:6, 0], labels[fold][0, 2:6, 6:9, 0] = 4, 9  # two nuclei that touch
        labels[fold][1, 1:4, 9:14, fold] = 3
        labels[fold][..., 5] = labels[fold][..., :5].sum(axis=-1) == 0
        save(home / "images" / f"fold{fold}" / "images.npy", images[fold])
        save(home / "images" / f"fold{fold}" / "types.npy", np.array(["Breast", "Colon"]))
        save(home / "masks" / f"fold{fold}" / "masks.npy", labels[fold])
    save(tmp_path / "Fold 3" / "masks" / "fold3" / "masks.npy", labels[3][:1])  # a mask too few

    cases = list(cases_of(card)(tmp_path))
    results = read(card, cases, tmp_path)
    refused = {case_id for case_id, result in results.items() if result.refusal}
    assert refused == {"fold3_00001"}
    assert sorted(set(results) - refused) == ["fold1_00000", "fold1_00001", "fold2_00000", "fold2_00001", "fold3_00000"]
    for fold in (1, 2):
        (first,), (second,) = results[f"fold{fold}_00000"].rows, results[f"fold{fold}_00001"].rows
        assert np.array_equal(pixels(first), images[fold][0].astype(np.uint8))
        nuclei = masks(first, "neoplastic cell nucleus")
        assert [int(nucleus.sum()) for nucleus in nuclei] == [16, 12]
        concept = {1: "inflammatory cell nucleus", 2: "connective tissue cell nucleus"}[fold]
        assert np.array_equal(mask(second, concept), labels[fold][1, ..., fold] > 0)
        assert set(second["absent"]) == set(card.concepts) - {concept}
    assert {case.group for case in cases} == {"fold1", "fold2", "fold3"}
    assert {case.case_id[:5]: case.split for case in cases} == {"fold1": "train", "fold2": "val", "fold3": "test"}
    where = account(card, files_below(tmp_path), cases)
    assert where.unclaimed == ()
    assert len(where.not_data) == 3
