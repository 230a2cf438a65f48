"""Run lengths in a CSV: counted as each competition counts them, by an oracle of others where there is one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pycocotools import mask as coco
from pydicom.uid import generate_uid

from infra.errors import CaseError
from preprocessing import schema
from preprocessing.build import build_dataset
from preprocessing.cards import Layout, RunLengths, load_card
from preprocessing.readers.runs import drawn, read_runs
from preprocessing.schema.rle import decode
from preprocessing.yaml_card import read_card
from tests.made_dicom import base, set_pixels
from tests.preprocessing.test_build import FLAT, PARAMS, build, inventory_of, reasons

ABSOLUTE = RunLengths({"": "pneumothorax"})
SIIM = RunLengths({"": "pneumothorax"}, ending=".dcm", counting="relative")


def blob(height: int = 24, width: int = 40) -> np.ndarray[Any, Any]:
    """Asymmetric, and touching the last pixel."""
    mask = np.zeros((height, width), dtype=bool)
    mask[3:9, 5:20] = mask[12:, 30:] = True
    mask[7, 7] = False
    return mask


def runs_of(mask: np.ndarray[Any, Any], rule: RunLengths) -> str:
    """As the competitions' own scripts write them, pixel by pixel."""
    flat = mask.ravel(order="F" if rule.order == "columns" else "C")
    said: list[int] = []
    end = 0
    for start in range(len(flat)):
        if flat[start] and (start == 0 or not flat[start - 1]):
            length = 1
            while start + length < len(flat) and flat[start + length]:
                length += 1
            said += [start - end if rule.counting == "relative" else start + 1, length]
            end = start + length
    return " ".join(map(str, said))


def test_the_example_of_the_challenge() -> None:
    """`1 3 10 5` of an evaluation page means the pixels 1, 2, 3 and 10 to 14, the first pixel being 1."""
    mask = drawn("1 3 10 5", ABSOLUTE, (5, 4))
    assert (np.flatnonzero(mask.ravel(order="F")) + 1).tolist() == [1, 2, 3, 10, 11, 12, 13, 14]


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 9), st.integers(1, 9), st.data())
def test_every_mask_comes_back(height: int, width: int, data: st.DataObject) -> None:
    bits = data.draw(st.lists(st.booleans(), min_size=height * width, max_size=height * width))
    mask = np.array(bits).reshape(height, width)
    for counting in ("absolute", "relative"):
        for order in ("columns", "rows"):
            rule = RunLengths({"": "polyp"}, counting=counting, order=order)  # type: ignore[arg-type]
            assert np.array_equal(drawn(runs_of(mask, rule), rule, (height, width)), mask)


def test_relative_columns_are_what_coco_counts() -> None:
    """COCO's uncompressed run lengths are the same numbers: gap, length, gap, length …"""
    counts = [int(one) for one in runs_of(blob(), SIIM).split()]
    packed = coco.frPyObjects({"size": [24, 40], "counts": [*counts, 0]}, 24, 40)
    theirs = np.array(coco.decode(packed), dtype=bool)
    assert np.array_equal(drawn(runs_of(blob(), SIIM), SIIM, (24, 40)), theirs)


@pytest.mark.parametrize(
    ("runs", "reason"),
    [
        ("1 2 3", "unreadable"), ("a b", "unreadable"), ("-3 4", "unreadable"), ("0 2", "mask_size"),
        ("20 2", "mask_size"), ("1 9223372036854775807", "mask_size"), ("9223372036854775807 1", "mask_size"),
        ("1 99999999999999999999", "unreadable"),
    ],
)  # fmt: skip
def test_runs_that_leave_the_picture_or_are_no_numbers_are_refused(runs: str, reason: str) -> None:
    with pytest.raises(CaseError) as caught:
        drawn(runs, ABSOLUTE, (4, 5))
    assert caught.value.reason == reason


def test_a_table_says_nothing_with_minus_one_and_may_have_spaces_and_long_rows(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    long = " ".join(["1 1"] * 100_000)
    path.write_text(f"ImageId, EncodedPixels\na, -1\nb, 1 3\nb, 10 5\nc,\nd, {long}\n", encoding="utf-8")
    found = read_runs(path, SIIM)
    assert {name: [row.runs for row in rows] for name, rows in found.items() if name != "d.dcm"} == {
        "a.dcm": [""], "b.dcm": ["1 3", "10 5"], "c.dcm": [""]
    }  # fmt: skip
    with pytest.raises(CaseError, match="unreadable"):
        read_runs(path, RunLengths({"": "x"}, runs="Runs"))


def test_the_challenge_of_siim_as_it_was_given(tmp_path: Path) -> None:
    """DICOM named by instance, two findings in one picture, one without, one that the table forgot, one too large."""
    root, rng, rows = tmp_path / "raw", np.random.default_rng(0), []
    uids = [generate_uid() for _ in range(5)]
    masks = {uids[0]: [blob(), blob()[::-1, ::-1].copy()], uids[1]: [], uids[3]: [blob()]}
    for uid in uids:
        folder = root / "dicom-images-train" / generate_uid() / generate_uid()
        folder.mkdir(parents=True)
        made = base(uid, "1.2.840.10008.5.1.4.1.1.7")
        set_pixels(made, rng.integers(0, 256, (24, 40), dtype=np.uint8))
        made.save_as(folder / f"{uid}.dcm", enforce_file_format=True)
    for uid, listed in masks.items():
        rows += [f"{uid}, {runs_of(mask, SIIM)}" for mask in listed] or [f"{uid}, -1"]
    rows += [f"{uids[4]}, 5 99999"]
    (root / "train-rle.csv").write_text("\n".join(["ImageId, EncodedPixels", *rows]) + "\n", encoding="utf-8")
    (root / "sample_submission.csv").write_text("ImageId,EncodedPixels\n", encoding="utf-8")
    report = build_dataset(
        load_card("Pneumothorax"), root, inventory_of(root), tmp_path / "out", PARAMS,
        pseudonym_key=b"k", case_cache=None, source_kind="mirror",
    )  # fmt: skip
    assert (report["counts"]["cases_kept"], report["counts"]["cases_quarantined"]) == (3, 2)
    assert sorted(reason for reason, _ in reasons(tmp_path / "out").values()) == ["label_missing", "mask_size"]
    found = []
    for row in schema.read_manifest(tmp_path / "out").to_pylist():
        whole = np.zeros((24, 40), dtype=bool)
        for item in row["objects"]:
            whole |= decode(item["rle"], 24, 40).astype(bool)
        found.append((whole, row["absent"]))
    assert sum(not mask.any() and absent == ["pneumothorax"] for mask, absent in found) == 1
    for expected in (blob() | blob()[::-1, ::-1], blob()):
        assert any(np.array_equal(mask, expected) for mask, _ in found)


def test_classes_and_instances_by_a_card_in_yaml(tmp_path: Path) -> None:
    """A table with a class column; each row is one object."""
    root = tmp_path / "raw"
    (root / "images").mkdir(parents=True)
    rng = np.random.default_rng(1)
    for name in ("a", "b"):
        Image.fromarray(rng.integers(0, 256, (24, 40), dtype=np.uint8)).save(root / "images" / f"{name}.png")
    rows = [f"a.png,Lesion,{runs_of(blob(), ABSOLUTE)}", f"a.png,lesion,{runs_of(blob()[::-1], ABSOLUTE)}", "b.png,,-1"]
    (root / "train.csv").write_text("file,class,rle\n" + "\n".join(rows) + "\n", encoding="utf-8")
    (tmp_path / "card.yaml").write_text(
        "name: Runs\nmodality: dermoscopy\nlicence: {terms: internal}\npublic: true\n"
        'layouts:\n  - {image: "images/{case}.png", label: train.csv}\n'
        "labels: {kind: RunLengths, names: {lesion: lesion}, image: file, runs: rle, label: class}\n"
        "instances: values\nsearched: [lesion]\n",
        encoding="utf-8",
    )
    card = read_card(tmp_path / "card.yaml").card
    build(card, root, tmp_path / "out")
    manifest = {row["case_id"]: row for row in schema.read_manifest(tmp_path / "out").to_pylist()}
    assert [item["instance"] for item in manifest["a"]["objects"]] == [1, 2]
    assert manifest["b"]["objects"] == []
    assert manifest["b"]["absent"] == ["lesion"]
    assert isinstance(card.layouts[0], Layout)
    assert card.labels != FLAT.labels
    assert pq.read_table(tmp_path / "out" / schema.QUARANTINE_FILE).num_rows == 0
