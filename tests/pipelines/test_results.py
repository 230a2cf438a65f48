"""The page of results: what the U-Nets are given and how they are judged."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from pipelines.bench import results, results_page
from training.decision import MASK_THRESHOLDS
from training.evaluate import truth_of

from ..training.made import write_dataset


def test_a_u_net_that_answers_the_truth_scores_one_and_its_threshold_comes_from_validation(tmp_path: Path) -> None:
    write_dataset(tmp_path, "shapes", 12, splits=("train", "val", "test"))
    folder = tmp_path / "inputs"
    rows = results._write_inputs(tmp_path, "shapes", 32, folder)
    concepts = json.loads((folder / "concepts.json").read_text())
    assert concepts == ["bright disc", "dark square"]
    images, maps = np.load(folder / "train_images.npy"), np.load(folder / "train_maps.npy")
    assert images.shape == (4, 32, 32, 3)
    assert maps.shape == (4, 2, 32, 32)
    assert np.load(folder / "train_known.npy").all()  # searched for both: what is not marked is absent
    assert len(np.load(folder / "asked_images.npy")) == len(rows) == 8
    # the truth, but sure of it by 0.55 alone: only thresholds below find it, and validation says so
    answers = np.array([[0.55 * truth_of(row, concept) for concept in concepts] for _, row in rows])
    assert results._judge(rows, concepts, answers, "test") == 1.0
    tight = [threshold for threshold in MASK_THRESHOLDS if threshold > 0.55]
    assert tight
    assert results._dice(rows[0][1], _first(rows[0][1]), concepts, answers[0], tuple(tight)) == [0.0] * len(tight)
    # a concept that no training sample had is missed
    assert results._judge(rows, ["dark square"], answers[:, 1:], "test") == pytest.approx(_share(rows, "dark square"))


def _first(row: dict) -> str:
    return min(item["concept"] for item in row["objects"])


def _share(rows: list, concept: str) -> float:
    asked = [item["concept"] for split, row in rows if split == "test" for item in row["objects"]]
    return asked.count(concept) / len(asked)


def test_the_page_compares_where_both_have_a_figure() -> None:
    def entry(before: float | None, after: float | None, absent: float | None, external: bool = False) -> dict:
        figures = {"dice_text_before": before, "dice_text_after": after, "score_absent": absent}
        return {"modality": "CT", "external": external, "samples": 3, **figures}

    page = results_page.markdown(
        {
            "machine": {"date": "d", "cpu": "c", "cores": 2, "load_before": 0.1, "versions": {}},
            "recipe": "small", "seed": 7, "split": "test", "parameters": 1e6, "image_size": 64, "steps": 5,
            "train_s": 60.0, "unet_s": 20.0,
            "trained_on": {"A": {"train": 4}, "B": {"train": 2}, "C": {}},
            "datasets": {"A": entry(0.0, 0.5, 0.1), "B": entry(0.1, 0.3, None), "C": entry(None, None, None),
                         "E": entry(0.0, 0.2, None, external=True)},
            "unet": {"A": {"dice": 0.4, "steps": 1}, "B": {"dice": 0.6, "steps": 1}},
        }
    )  # fmt: skip
    assert "Mean over the 2 datasets with a figure of both: start 0.050, ours 0.400, U-Net 0.500" in page
    assert "ours − U-Net -0.100" in page
    assert "ours is higher on 1 of 2" in page
    assert "| E | CT | 3 | 0.000 | 0.200 |" in page
