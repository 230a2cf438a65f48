"""`segfoundry withdraw` and a copy of the withdrawn picture: after the next ingest neither is in any shard."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from infra import repository
from preprocessing.schema import read_manifest
from tests.pipelines.test_own_card import CARD, segfoundry
from tests.preprocessing.pictures import scan

pytestmark = pytest.mark.slow


def test_the_twin_of_a_withdrawn_case_does_not_come_back(tmp_path: Path) -> None:
    raw, card, root = tmp_path / "raw", tmp_path / "card.yaml", tmp_path / "workspace"
    card.write_text(CARD + "public: true\n", encoding="utf-8")
    pictures = {f"p{number}_0": ("train", scan(np.random.default_rng(number))) for number in range(4)}
    pictures["p8_0"] = ("test", scan(np.random.default_rng(8)))
    pictures["p9_0"] = ("train", np.ascontiguousarray(pictures["p8_0"][1][:, ::-1]))  # the same patient, renamed
    pictures["p9_1"] = ("train", scan(np.random.default_rng(9)))  # and another picture of them
    for name, (split, pixels) in pictures.items():
        mask = np.zeros((*pixels.shape[:2], 3), np.uint8)
        mask[5:20, 7:30] = (0, 255, 0)
        for path, content in (
            (raw / split / "images" / f"{name}.png", pixels),
            (raw / split / "masks" / f"{name}_mask.png", mask),
        ):
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(content).save(path)
    where = ["--workspace", str(root)]
    segfoundry("data", "ingest", "--card", str(card), "--root", str(raw), *where)
    held = read_manifest(root / "data/MyPolyps").to_pylist()
    names = {row["case_id"] for row in held}
    assert "p8_0" in names
    assert names.isdisjoint({"p9_0", "p9_1"})

    said = segfoundry("withdraw", "--case", "MyPolyps/p8_0", "--reason", "consent", *where)
    assert said["twins"] == ["MyPolyps/p9_0", "MyPolyps/p9_1"]
    lines = [json.loads(line) for line in (root / "withdrawn.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [line.get("twin_of") for line in lines] == [None, "p8_0", "p8_0"]
    assert [len(line.get("pixels_sha256", ())) for line in lines] == [1, 0, 0]
    assert repository.git(root, "status", "--porcelain") == ""
    assert not segfoundry("withdraw", "--case", "MyPolyps/p8_0", "--reason", "again", *where)["changed"]

    segfoundry("data", "ingest", "MyPolyps", *where)
    assert {row["case_id"] for row in read_manifest(root / "data/MyPolyps").to_pylist()} == {
        f"p{number}_0" for number in range(4)
    }
    refused = pq.read_table(root / "data/MyPolyps/quarantine.parquet").to_pylist()
    assert {row["case_id"]: row["reason"] for row in refused} == dict.fromkeys(("p8_0", "p9_0", "p9_1"), "withdrawn")
    assert (root / "reports/data/MyPolyps.html").is_file()
    assert segfoundry("data", "card", "MyPolyps", *where)["leakage"]["ok"]
