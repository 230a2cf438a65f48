"""A dataset that nobody has seen goes in by a YAML card alone, and an edited card makes exactly it stale."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml
from PIL import Image

from infra.dvc import DataRepo

CARD = """\
name: MyPolyps
modality: endoscopy
licence: {terms: internal use, redistribution: no, commercial: no}
layouts:
  - image: "{split}/images/{case}.png"
    label: "{split}/masks/{case}_mask.png"
labels: {kind: ByColour, colours: {"#00ff00": polyp}}
searched: [polyp]
group: "{group:word}_*"
"""


def segfoundry(*arguments: str, code: int = 0) -> Any:
    own = {name: value for name, value in os.environ.items() if not name.startswith(("SEGFOUNDRY_", "PREFECT_"))}
    environment = {**own, "SEGFOUNDRY_OFFLINE": "1", "SEGFOUNDRY_PSEUDONYM_KEY": "a secret of ours"}
    command = [sys.executable, "-m", "pipelines", *arguments, "--json"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300, check=False)
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight patients with two frames each; the last two are an official test split."""
    root = tmp_path_factory.mktemp("raw") / "my polyps"
    noise = np.random.default_rng(3)
    for patient in range(8):
        split = "test" if patient > 5 else "train"
        for frame in range(2):
            picture = noise.integers(0, 255, (48, 64, 3), dtype=np.uint8)
            mask = np.zeros((48, 64, 3), np.uint8)
            mask[5 : 10 + patient, 7:30] = (0, 255, 0)
            for kind, pixels in (("images", picture), ("masks", mask)):
                path = root / split / kind / f"p{patient}_{frame}{'_mask' if kind == 'masks' else ''}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(pixels).save(path)
    return root


def test_check_explains_and_shows(raw: Path, tmp_path: Path) -> None:
    card = tmp_path / "my.yaml"
    card.write_text(CARD, encoding="utf-8")
    found = segfoundry("data", "check", "--card", str(card), "--root", str(raw))
    assert (found["cases_kept"], found["groups"], found["objects"]) == (16, 8, {"polyp": 16})
    assert [row["files"] for row in found["expressions"]] == [16, 16]
    assert found["expressions"][0]["expression"] == "{split}/images/{case}.png"
    assert found["official_splits"] == {"test": 4, "train": 12}
    page = Path(found["overlays"]).read_text(encoding="utf-8")
    assert page.count("data:image/jpeg;base64,") == 12
    assert "http" not in page
    card.write_text(CARD.replace("_mask.png", "_Mask.jpg"), encoding="utf-8")
    found = segfoundry("data", "check", "--card", str(card), "--root", str(raw), code=1)
    near = found["expressions"][1]["near"]
    assert [(one["why"], one["files"]) for one in near] == [("another ending", 16)]
    assert found["orphans"]["without_label"] == 16


@pytest.mark.slow
def test_a_card_of_ones_own_goes_in_and_an_edit_makes_exactly_it_stale(raw: Path, tmp_path: Path) -> None:
    card, place = tmp_path / "my.yaml", tmp_path / "workspace"
    card.write_text(CARD, encoding="utf-8")
    where = ["--workspace", str(place)]
    made = segfoundry("data", "ingest", "--card", str(card), "--root", str(raw), *where)
    assert made["datasets"][0]["cases_kept"] == 16
    segfoundry("data", "ingest", "Phantom_Nuclei", *where)
    assert yaml.safe_load((place / "params.yaml").read_text())["datasets"] == ["MyPolyps", "Phantom_Nuclei"]
    tracked = subprocess.run(["git", "-C", str(place), "ls-files", "cards"], capture_output=True, text=True, check=True)
    assert tracked.stdout.split() == ["cards/MyPolyps.yaml"]
    rows = pq.read_table(place / "data" / "MyPolyps" / "manifest.parquet").to_pylist()
    assert sorted({row["split"] for row in rows if row["case_id"]}) >= ["test", "train"]
    assert sum(row["split"] == "test" for row in rows) == 4
    said = json.dumps(rows, default=bytes.hex)
    assert "p0_" not in said  # closed by default: no name of a case or file
    # nothing changed: nothing to do; a comment is no change
    own = place / "cards" / "MyPolyps.yaml"
    own.write_text("# checked by the radiologist\n" + own.read_text(encoding="utf-8"), encoding="utf-8")
    assert segfoundry("data", "ingest", *where)["made"] == []
    own.write_text(own.read_text(encoding="utf-8").replace("searched: [polyp]", "searched: []"), encoding="utf-8")
    stage = [sys.executable, "-m", "pipelines", "stage", "ingest", "MyPolyps"]
    refused = subprocess.run(stage, cwd=place, capture_output=True, text=True, check=False)
    assert refused.returncode == 2
    assert "its card changed after the scan" in refused.stderr
    segfoundry("data", "fetch", *where)
    assert {name for name in DataRepo(place).changed() if name.startswith("ingest@")} == {"ingest@MyPolyps"}
    assert segfoundry("data", "ingest", *where)["made"] == ["ingest@MyPolyps"]
    listed = {row["name"]: row for row in segfoundry("data", "list", *where)["datasets"]}
    assert listed["MyPolyps"]["samples"] == 16
    assert segfoundry("audit", "data", "mypolyps", *where)["ok"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["data", "check"], "expected the name of a dataset or --card FILE, found neither"),
        (["data", "check", "BUSI", "--card", "my.yaml"], "found both"),
        (["data", "check", "--card", "my.yaml"], "--root: expected the folder"),
        (["data", "check", "--card", "none.yaml", "--root", "."], "none.yaml: expected a card, found no such file"),
        (["data", "fetch", "BUSI", "DSB2018", "--root", "."], "--root: expected one dataset to go with the folder"),
        (["data", "fetch", "BUSI", "--root", "none"], "--root: expected a folder with the raw files of BUSI"),
        (["data", "fetch", "--card", "busi.yaml", "--root", "."], "found that of the card BUSI"),
    ],
)
def test_wrong_use_is_one_message(
    arguments: list[str], words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    from pipelines.cli import run

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SEGFOUNDRY_WORKSPACE", str(tmp_path / "workspace"))
    (tmp_path / "my.yaml").write_text(CARD, encoding="utf-8")
    (tmp_path / "busi.yaml").write_text(CARD.replace("MyPolyps", "busi"), encoding="utf-8")
    assert run(arguments) == 2
    assert words in " ".join(capfd.readouterr().err.split())
