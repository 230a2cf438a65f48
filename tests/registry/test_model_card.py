"""The card says what the evaluation and the lineage say: nothing else, and nothing left out."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from registry.model_card import write_model_card
from registry.store import RegistryStore
from tests.registry import samples
from tests.registry.conftest import MODEL, Made


@pytest.fixture
def facts(tmp_path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    candidate = samples.write_candidate(tmp_path / "candidate")
    folder = samples.write_evaluation(tmp_path / "evaluation", candidate)
    return json.loads((folder / "evaluation.json").read_text()), samples.lineage(candidate, folder)


def card(tmp_path: Path, evaluation: dict[str, Any], lineage: dict[str, Any]) -> tuple[str, str]:
    one, two = write_model_card(tmp_path, evaluation, lineage, "segfoundry-demo")
    return one.read_text(), two.read_text()


def section(text: str, title: str) -> str:
    return text.split(f"## {title}\n")[1].split("\n## ")[0]


def rows(text: str) -> list[list[str]]:
    lines = [line for line in text.splitlines() if line.startswith("|") and not set(line) <= set("| -")]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]


def test_every_dataset_is_there_with_its_counts_its_version_and_its_licence(tmp_path: Path, facts: Any):
    evaluation, lineage = facts
    text, _ = card(tmp_path, evaluation, lineage)
    data = {row[0]: row for row in rows(section(text, "Data"))}
    licences = {row[0]: row for row in rows(section(text, "Licence chain"))}
    for one in samples.datasets():
        row = data[one["dataset"]]
        assert row[3] == f"{one['counts']['cases_kept']:,}"
        assert row[5:8] == [f"{one['splits'][split]:,}" for split in ("train", "val", "test")]
        assert row[8] == one["manifest_digest"][:12]
        terms = licences[f"data: {one['dataset']}"]
        assert terms[1] == one["licence"].get("spdx", one["licence"].get("terms"))
        assert terms[2] == ("yes" if one["licence"]["commercial"] else "no")
    assert "Strictest of all: research and education only. Commercial use: no" in text
    assert "No weights under the SAM License" in text
    assert "Commercial use: the licences of data and weights say no." in section(text, "Not intended")


def test_weights_of_meta_bring_the_sam_license(tmp_path: Path, facts: Any):
    evaluation, lineage = facts
    start = {"of": "facebook/sam3", "terms": "SAM License", "commercial": "yes", "redistribution": "yes"}
    text, page = card(tmp_path, evaluation, {**lineage, "start_licences": [start]})
    chain = section(text, "Licence chain")
    assert "| start weights: facebook/sam3 | SAM License | yes | yes |" in chain
    assert "SAM License, which goes on to bind this model" in chain
    assert "SAM License" in page


def test_figures_come_with_their_intervals_and_failures_with_theirs(tmp_path: Path, facts: Any):
    evaluation, lineage = facts
    evaluation["datasets"]["BUSI"]["external"] = True
    evaluation["aggregates"] = [
        {"level": "dataset", "name": "DSB2018", "external": False, "model": "after", "prompt": "text", "metric": "dice",
         "value": 0.66, "interval": [0.601, 0.702]},
        {"level": "dataset", "name": "BUSI", "external": True, "model": "after", "prompt": "text", "metric": "dice",
         "value": 0.35, "interval": [0.25, 0.45]},
        {"level": "dataset", "name": "DSB2018", "external": False, "model": "before", "prompt": "text",
         "metric": "dice", "value": 0.28, "interval": [0.1, 0.2]},
    ]  # fmt: skip
    evaluation["presence"] = {"auroc": 0.91, "auroc_interval": [0.85, 0.96], "false_alarm_rate": 0.07,
                              "false_alarm_rate_interval": None, "ece": None}  # fmt: skip
    evaluation["failures"] = {"dcmqi": {"after": {"missed": 5, "too_large": 2}, "before": {"missed": 9}}}
    text, _ = card(tmp_path, evaluation, lineage)
    measured = {row[0]: row for row in rows(section(text, "How well it does"))}
    assert measured["DSB2018"] == ["DSB2018", "5", "0.280", "0.660", "0.601 to 0.702", "0.710"]
    assert measured["BUSI (external)"][4] == "0.250 to 0.450"
    assert measured["dcmqi"][4] == "–"  # no interval was computed, and none is claimed
    failures = rows(section(text, "Known failures"))
    concepts = [row for row in failures if len(row) == 4]
    assert concepts[1][:3] == ["lung lesion", "dcmqi", "0.190"]  # the worst, after the header
    assert [row for row in failures if row[0] == "dcmqi" and len(row) == 3][1:] == [
        ["dcmqi", "missed", "5"], ["dcmqi", "too large", "2"]]  # fmt: skip
    absent = dict(row[:2] for row in rows(section(text, "Absent concepts")) if len(row) == 2)
    assert absent["presence AUROC"] == "0.910 (0.850 to 0.960)"
    assert absent["false alarms, share of absent pairs"] == "0.070"
    assert absent["calibration error of presence (ECE)"] == "–"


def test_an_unmeasured_dataset_is_named_and_how_to_rebuild_is_said(tmp_path: Path, facts: Any):
    evaluation, lineage = facts
    text, _ = card(tmp_path, evaluation, {**lineage, "code_commit": "abc-changed"})
    assert "Reliance on figures for Sunnybrook" in section(text, "Not intended")
    rebuild = section(text, "How to build it again")
    assert f"git checkout {lineage['data_version']} && dvc checkout" in rebuild
    assert lineage["weights_sha256"] in rebuild
    assert "cannot be rebuilt for certain" in rebuild


class _Page(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.links: list[str] = []
        self.tables = 0
        self.tags: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.tables += tag == "table"
        self.links += [value or "" for name, value in attrs if name in ("src", "href")]


def test_the_page_holds_all_that_the_text_holds_and_asks_for_nothing(tmp_path: Path, facts: Any):
    evaluation, lineage = facts
    lineage["datasets"][0]["citation"] = "<script>alert(1)</script> | et al."
    text, page = card(tmp_path, evaluation, lineage)
    read = _Page()
    read.feed(page)
    assert read.links == ["data:,"]
    assert "script" not in read.tags
    assert read.tables == len(re.findall(r"^\| ---", text, flags=re.M))
    assert r"</script> \| et al." in text  # a pipe in a name does not break a table
    for one in lineage["datasets"]:
        assert one["dataset"] in page


def test_every_version_has_its_card_and_the_same_facts_give_the_same_bytes(
    store: RegistryStore, make: Callable[..., Made], tmp_path: Path
):
    made = make()
    registered = made.register(store)
    kept = Path(store.client.download_artifacts(registered.run_id, "model_card", str(tmp_path)))
    again = write_model_card(tmp_path / "again", store.evaluation_of(MODEL, 1), store.lineage_of(MODEL, 1), MODEL)
    assert sorted(path.name for path in kept.iterdir()) == ["model_card.html", "model_card.md"]
    for path in again:
        assert (kept / path.name).read_bytes() == path.read_bytes()
