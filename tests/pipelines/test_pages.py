"""The page of each dataset in a workspace: the version's card with its row of the leakage matrix, outside of DVC."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import yaml

from pipelines import gates, pages
from pipelines.workspace import Workspace
from preprocessing import schema
from preprocessing.leakage import row_of
from tests.pipelines.test_gates import CLOSED, EXTERNAL, ONE, make, place  # noqa: F401
from tests.preprocessing.test_card_page import _Page
from tests.preprocessing.test_leakage import picture


def everything(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_pages_have_the_row_and_versions_stay_what_they_are(place: Workspace, tmp_path: Path) -> None:  # noqa: F811
    before = everything(place.data)
    written = pages.write_pages(place)
    assert [path.relative_to(place.root).as_posix() for path in written] == [
        f"reports/data/{card.name}.html" for card in (ONE, CLOSED, EXTERNAL)
    ]
    clean = everything(place.reports)
    for path in written:
        rows = _Page(path.read_text(encoding="utf-8")).tables["leakage"][1:]
        assert sorted(rows) == [[name, "0", "0"] for name in ("Closed", "External", "One")]
        assert rows[0][0] == path.stem
        own = _Page((place.data / path.stem / schema.CARD_FILE).read_text(encoding="utf-8"))
        assert "leakage" not in own.tables
        assert own.tables["fingerprint"] == _Page(path.read_text(encoding="utf-8")).tables["fingerprint"]
    stamps = [path.stat().st_mtime_ns for path in written]
    pages.write_pages(place)
    assert [path.stat().st_mtime_ns for path in written] == stamps

    # a dataset that leaks comes: the rows of both change, and no version does
    set_datasets(place, ["One", "Closed", "External", "Copy"])
    copy: Any = type(ONE)(**{**vars(ONE), "name": "Copy"})
    make(place, copy, tmp_path / "copy", [np.ascontiguousarray(picture(0)[:, ::-1])], "test")
    pages.write_pages(place)
    told = {path.stem: _Page(path.read_text(encoding="utf-8")).tables["leakage"] for path in pages_of(place)}
    assert ["Copy", "1 near", "0"] in told["One"]
    assert ["One", "0", "1 near"] in told["Copy"]
    assert ["Copy", "0", "0"] in told["External"]
    assert row_of(gates.leakage(place, pages.ingested(place)), "One")["ok"] is False
    assert {name: data for name, data in everything(place.data).items() if not name.startswith("Copy/")} == before

    # and goes: its page too, and the others say again what they said
    set_datasets(place, ["One", "Closed", "External"])
    pages.write_pages(place)
    assert everything(place.reports) == clean


def pages_of(place: Workspace) -> list[Path]:  # noqa: F811
    return sorted((place.reports / "data").glob("*.html"))


def set_datasets(place: Workspace, names: list[str]) -> None:  # noqa: F811
    path = place.root / "params.yaml"
    params = yaml.safe_load(path.read_text(encoding="utf-8"))
    path.write_text(yaml.safe_dump({**params, "datasets": names}), encoding="utf-8")
