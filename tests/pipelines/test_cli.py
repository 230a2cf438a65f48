"""The command line as a newcomer meets it: exit codes, one message, one JSON document, and no waiting."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

PROJECT = Path(__file__).resolve().parents[2]


def segfoundry(*arguments: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    own = {
        name: value for name, value in os.environ.items() if not name.startswith(("SEGFOUNDRY_", "PREFECT_", "RAY_"))
    }
    return subprocess.run(
        [sys.executable, "-m", "pipelines", *arguments],
        cwd=cwd,
        env={**own, **environment},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )


def test_help_comes_within_a_second_and_imports_nothing_heavy(tmp_path: Path) -> None:
    begun = time.monotonic()
    code = (
        "import sys\n"
        "from pipelines.cli import run\n"
        "assert run(['--help']) == 0\n"
        "heavy = {'torch', 'ray', 'mlflow', 'prefect', 'dvc', 'pandas', 'pyarrow', 'SimpleITK'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 0, done.stderr
    assert time.monotonic() - begun < 5  # 0.4 s on a quiet machine; the limit allows for a busy one


@pytest.mark.parametrize(
    "verbs",
    ["demo", "doctor", "data ingest", "data check", "train", "evaluate", "model promote", "audit case", "flow run",
     "flow serve", "stack up", "withdraw"],
)  # fmt: skip
def test_every_verb_teaches_with_an_example_or_a_reason(verbs: str, tmp_path: Path) -> None:
    done = segfoundry(*verbs.split(), "--help", cwd=tmp_path)
    assert done.returncode == 0
    assert "--json" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nonsense"], ["No such command", "nonsense"]),
        (["demo", "--nonsense"], ["No such option", "--nonsense"]),
        (["data", "fetch", "Kvasir"], ["no dataset is named 'Kvasir'", "Kvasir-SEG"]),
        (["train", "--workspace", "none"], ["no workspace here"]),
        (["demo", "--steps", "0"], ["--steps"]),
        (["data", "check", "BUSI", "--folder", "none"], ["--folder", "none"]),
        (["model", "promote", "3"], ["--reason"]),
        (["demo", "--workspace", "file"], ["expected a folder", "found a file", "--workspace"]),
        (["demo", "--workspace", "file/below"], ["expected a folder", "--workspace"]),
        (["data", "fetch", "BUSI", "--workspace", "/proc/segfoundry"], ["can be written", "--workspace"]),
    ],
)
def test_wrong_use_is_one_message_and_exit_code_2(arguments: list[str], words: list[str], tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    done = segfoundry(*arguments, cwd=tmp_path)
    assert done.returncode == 2
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    for word in words:
        assert word in done.stderr


def test_with_json_a_mistake_is_a_document_too(tmp_path: Path) -> None:
    done = segfoundry("data", "fetch", "Kvasir", "--json", cwd=tmp_path)
    assert done.returncode == 2
    assert json.loads(done.stdout)["exit_code"] == 2


def test_a_mirror_that_is_not_there_is_a_mistake(tmp_path: Path) -> None:
    done = segfoundry("demo", "--datasets", "BUSI", cwd=tmp_path, SEGFOUNDRY_MIRROR="nowhere")
    assert done.returncode == 2
    assert "SEGFOUNDRY_MIRROR" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_dataset_that_the_mirror_lacks_is_named(tmp_path: Path) -> None:
    mirror = tmp_path / "mirror"
    mirror.mkdir()
    done = segfoundry("data", "ingest", "busi", cwd=tmp_path, SEGFOUNDRY_MIRROR=str(mirror), SEGFOUNDRY_OFFLINE="1")
    assert done.returncode == 2
    assert "BUSI: expected its folder, found none: the mirror has no folder BUSI" in done.stderr


def test_a_bad_value_in_params_is_named(tmp_path: Path) -> None:
    params = yaml.safe_load((PROJECT / "params.yaml").read_text(encoding="utf-8"))
    params["train"]["workers"] = "two"
    workspace = tmp_path / "workspace"
    workspace.mkdir()
    (workspace / "params.yaml").write_text(yaml.safe_dump(params), encoding="utf-8")
    done = segfoundry("demo", "--workspace", str(workspace), cwd=tmp_path)
    assert done.returncode == 2
    assert f"{workspace}/params.yaml: train.workers: expected a valid integer" in done.stderr
    assert "found 'two'" in done.stderr


def test_list_and_card_speak_json(tmp_path: Path) -> None:
    listed = json.loads(segfoundry("data", "list", "--json", cwd=tmp_path).stdout)
    assert {"BUSI", "dcmqi", "CHASE_DB1"} <= {row["name"] for row in listed["datasets"]}
    card = json.loads(segfoundry("data", "card", "busi", "--json", cwd=tmp_path).stdout)
    assert card["card"]["name"] == "BUSI"
    assert card["version"] is None


def test_the_reference_says_what_the_help_says() -> None:
    from pipelines.cli.reference import render

    said = (PROJECT / "docs" / "cli.md").read_text(encoding="utf-8")
    assert said == render(), "docs/cli.md is out of date: make docs"
