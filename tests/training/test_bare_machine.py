"""The training core runs where torch, lightning, transformers, pyarrow, numpy and Pillow are all that is installed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from infra.errors import DataError, UsageError
from tests.training.made import write_dataset
from training.sam3 import tokenizer
from training.sam3.tokenizer import PromptTokenizer

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_training_to_serving_with_six_packages(tmp_path: Path) -> None:
    PromptTokenizer.from_installed().save(tmp_path / "tokenizer")
    done = subprocess.run(
        [sys.executable, "-m", "tests.training.bare_machine", str(tmp_path), "--hide"],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=500,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.splitlines()[-1] == "bare machine: done"


def _without(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, name, None)


def test_plain_prompts_are_cleaned_alike_without_ftfy(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = ["Left  Lung", "a 'small'\tnodule (2-3 mm)", " <tumour>; 50% \r\n of [liver]~ "]
    wanted = [tokenizer.clean(text) for text in texts]
    _without("ftfy", monkeypatch)
    assert [tokenizer.clean(text) for text in texts] == wanted
    for text in ("Sjögren", "liver &amp; spleen", "left\x1b[0m lung"):
        with pytest.raises(UsageError, match="ftfy is not installed"):
            tokenizer.clean(text)


def test_merges_are_read_in_every_form_they_come_in(tmp_path: Path) -> None:
    installed = PromptTokenizer.from_installed()
    installed._clip.save_pretrained(tmp_path / "theirs")  # transformers' own tokenizer.json
    installed.save(tmp_path / "model" / "tokenizer")
    prompts = ["left ventricle", "polyp"]
    wanted = installed(prompts)
    for place in (tmp_path / "theirs", tmp_path / "model", tmp_path / "theirs" / "tokenizer.json"):
        assert PromptTokenizer.find(str(place))(prompts).equal(wanted), place
    (tmp_path / "merges.txt").write_text("#version: 0.2\ni n\nt h\n")
    with pytest.raises(DataError, match=r"merges\.txt: expected CLIP's 48894 merges, found 2"):
        PromptTokenizer.find(str(tmp_path))


@pytest.mark.slow
@pytest.mark.skipif(not os.environ.get("SEGFOUNDRY_SOAK"), reason="starts two more processes of torch: in make soak")
def test_ranks_of_torchrun_leave_one_model_folder(tmp_path: Path) -> None:
    write_dataset(tmp_path / "data", "Alpha", 6, splits=("train", "train", "val"))
    params = {"recipe": "tiny", "steps": 2, "overrides": {"global_batch": 3}}
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m"]
    done = subprocess.run(
        [
            *command,
            "training.alone",
            f"--data={tmp_path / 'data'}",
            f"--run-dir={tmp_path / 'run'}",
            f"--out={tmp_path / 'out'}",
            f"--params={json.dumps(params)}",
        ],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "RAY_ADDRESS": ""},
        capture_output=True,
        text=True,
        timeout=500,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert json.loads((tmp_path / "out" / "train.json").read_text())["workers"] == 2
