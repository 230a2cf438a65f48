"""What people write is shown as they wrote it: brackets are no markup, and a line ends at a line feed alone."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from infra.dvc import prepare_workspace
from infra.storage import read_json_lines, write_json_lines
from pipelines.cli import output, run
from pipelines.requests import REQUESTS_FILE
from pipelines.workspace import PROJECT, Workspace
from preprocessing.withdrawn import Tombstone, add_tombstones, read_tombstones

# what took text away, what raised MarkupError, an emoji code, and the line ends of Unicode
WRITTEN = "[gdpr art. 17] letter, see [/data/forms/12] [bold] :x:"
LINES = "a\u2028b\u2029c\u0085d"


@pytest.mark.parametrize("text", [WRITTEN, "[/]", "\\[red]"])
def test_strings_titles_cells_and_errors_are_shown_as_they_are(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    output.begin(as_json=False)
    output.show({}, text, output.table(f"title {text}", [f"column {text}"], [[f"cell {text}"]]))
    shown = capsys.readouterr().out
    assert shown.splitlines()[0] == text
    for what in ("title", "column", "cell"):
        assert f"{what} {text}" in shown
    assert output.fail(text, 2) == 2
    output.logs().print(output.table(text, ["x"], [[text]]))
    said = capsys.readouterr().err
    assert said.startswith(f"segfoundry: {text}\n")
    assert said.count(text) == 3


def test_a_mistake_is_told_in_the_words_that_were_typed(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert run(["data", "fetch", WRITTEN, "--workspace", str(tmp_path / "none")]) == 2
    assert WRITTEN in capsys.readouterr().err


def test_lines_of_json_end_at_a_line_feed_alone(tmp_path: Path) -> None:
    path = tmp_path / "withdrawn.jsonl"
    stones = [Tombstone("X", name, LINES, "ann", "2026-01-01T00:00:00+00:00") for name in ("1", "2")]
    for stone in stones:  # the second addition reads the first
        assert add_tombstones(path, [stone]) == [stone]
    assert LINES.encode() in path.read_bytes()
    assert read_tombstones(path) == stones
    write_json_lines(path, [{"reason": LINES}, {"reason": WRITTEN}])
    assert read_json_lines(path, "a reason", ("reason",)) == [{"reason": LINES}, {"reason": WRITTEN}]
    path.write_bytes(b"")
    assert read_json_lines(path, "nothing") == []


def test_a_dry_run_shows_the_reason_of_a_request(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    place = Workspace(tmp_path / "workspace")
    params = yaml.safe_load((PROJECT / "params.yaml").read_text(encoding="utf-8"))
    prepare_workspace(place.root, PROJECT, {**params, "datasets": ["Phantom_Nuclei"]})
    request = {"id": "0" * 16, "cause": "withdrawn", "key": "X/1", "reason": f"{WRITTEN} {LINES}", "actor": "ann",
               "at": "2026-01-01T00:00:00+00:00", "data_version": "data-v1", "datasets": ["X"], "cases": ["X/1"],
               "models": []}  # fmt: skip
    write_json_lines(place.root / REQUESTS_FILE, [request])
    assert run(["flow", "run", "retrain", "--dry-run", "--workspace", str(place.root)]) == 0
    assert f"asked for by ann: X/1 withdrawn: {WRITTEN}" in capsys.readouterr().out
