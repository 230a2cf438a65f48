from __future__ import annotations

import base64
import hashlib
import json
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from registry.charts import nice_ticks, shares, smoothed, training_curve
from registry.gate import decide
from registry.report import duration, write_report
from tests.registry import report_samples, samples
from tests.registry.conftest import RULES


class Page(HTMLParser):
    """What a browser would fetch, what a person would read, and whether the tags close."""

    VOID = frozenset({"meta", "link", "img", "br", "input", "hr", "wbr"})

    def __init__(self) -> None:
        super().__init__()
        self.fetched: list[str] = []
        self.links: list[str] = []
        self.pictures: list[dict[str, str | None]] = []
        self.tables = 0
        self.words: list[str] = []
        self.tags: set[str] = set()
        self.ids: set[str] = set()
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        given = dict(attrs)
        if given.get("id"):
            self.ids.add(str(given["id"]))
        for name in ("src", "srcset", "data", "action", "poster"):
            if given.get(name):
                self.fetched.append(str(given[name]))
        if given.get("href"):
            (self.links if tag == "a" else self.fetched).append(str(given["href"]))
        if tag == "img":
            self.pictures.append(given)
        self.tables += tag == "table"
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in self.VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] not in ("style", "script"):
            self.words.append(data)

    @property
    def joined(self) -> str:
        """The words without what stands between them: a name may break in the middle of a line."""
        return "".join(self.words)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


def render(tmp_path: Path, *, cards: list[dict[str, Any]] | None = None, gated: bool = True) -> tuple[str, Page]:
    candidate = samples.write_candidate(tmp_path / "candidate")
    evaluation = samples.write_evaluation(tmp_path / "evaluation", candidate, pictures=3)
    figures = json.loads((evaluation / "evaluation.json").read_text())
    champion = samples.evaluation("c" * 64, "d" * 64, change={"BUSI": 0.08})
    lineage = {"data_version": "data-v3", "current_data_version": "data-v3"}
    path = tmp_path / "reports" / "3.html"
    write_report(
        path,
        evaluation=evaluation,
        candidate=candidate,
        datasets=cards or samples.datasets(),
        phases={"ingest": 71.0, "train": 214.0},
        gate=decide(figures, champion, RULES, lineage=lineage) if gated else None,
        model={"name": "demo", "version": 3, "alias": "challenger"} if gated else None,
        links={"MLflow": "mlflow ui --backend-store-uri sqlite:///mlflow.db", "Prefect": "http://127.0.0.1:4200"},
    )
    html = path.read_text(encoding="utf-8")
    page = Page()
    page.feed(html)
    assert page.open == []
    return html, page


def test_the_page_fetches_nothing_and_runs_its_own_script_alone(tmp_path: Path):
    html, page = render(tmp_path)
    assert page.fetched
    assert all(address.startswith("data:") for address in page.fetched)
    assert [link for link in page.links if not link.startswith("#")] == ["http://127.0.0.1:4200"]
    assert html.count("<script") == 1
    script = html[html.index("<script>") + len("<script>") : html.index("</script>")]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'" in html
    assert "@import" not in html
    assert "url(" not in html


def test_links_within_the_page_lead_somewhere(tmp_path: Path):
    candidate = samples.write_candidate(tmp_path / "candidate")
    evaluation = report_samples.write_full_evaluation(tmp_path / "evaluation", candidate, pictures=4)
    page = Page()
    page.feed(report_samples.write_page(tmp_path, evaluation, candidate).read_text(encoding="utf-8"))
    within = [link[1:] for link in page.links if link.startswith("#")]
    assert len(within) > 10
    assert set(within) <= page.ids


def test_the_page_says_every_figure_that_was_measured_and_why_one_was_not(tmp_path: Path):
    _, page = render(tmp_path)
    for card in samples.datasets():
        assert card["dataset"] in page.joined
        assert card["manifest_digest"] in page.text
    assert "no test cases" in page.text
    assert "None" not in page.text
    assert "nan" not in page.text
    assert "privileged" in page.text
    assert "beyond the tolerated loss" in page.text
    assert "3 min 34 s" in page.text
    assert page.tables == 6  # datasets, concepts, boxes, gate, data, licences


def test_pictures_say_in_words_what_they_show(tmp_path: Path):
    _, page = render(tmp_path)
    assert len(page.pictures) == 3
    for picture in page.pictures:
        assert "truth and prediction" in str(picture["alt"])
        assert "Dice" in str(picture["alt"])


def test_names_from_outside_are_text_never_markup(tmp_path: Path):
    cards = samples.datasets()
    cards[0]["citation"] = "<script>alert(1)</script> & <img src=x>"
    cards[0]["source_reason"] = '"><iframe src="http://example.org">'
    html, page = render(tmp_path, cards=cards)
    assert html.count("<script") == 1
    assert "iframe" not in page.tags
    assert "<script>alert(1)</script>" in page.text


def test_a_candidate_that_was_not_judged_has_a_page_too(tmp_path: Path):
    _, page = render(tmp_path, gated=False)
    assert "Candidate model" in page.text
    assert "has not judged" in page.text


def test_a_curve_needs_two_points_and_spans_its_steps():
    assert training_curve([]) is None
    assert training_curve([{"step": 1, "loss": 2.0}]) is None
    curve = training_curve(samples.history(240))
    assert curve is not None
    assert [line.name for line in curve.lines] == ["loss", "loss_boxes", "loss_masks", "loss_presence"]
    assert curve.lines[0].path.startswith("M0,")
    assert "L1000," in curve.lines[0].path
    assert curve.last < curve.first / 2
    gap = training_curve([{"step": 1, "loss": 2.0}, {"step": 2, "loss": float("nan")}, {"step": 3, "loss": 1.0}])
    assert gap is not None
    assert "nan" not in gap.raw


def test_ticks_are_round_and_cover_the_range():
    assert nice_ticks(0, 4.1) == [0, 1, 2, 3, 4, 5]
    assert nice_ticks(0, 0.23)[-1] == pytest.approx(0.25)
    assert smoothed([1.0, 2.0]) == [1.0, 2.0]


def test_shares_add_up():
    rows = shares({"ingest": 30.0, "train": 90.0})
    assert [row["share"] for row in rows] == [25.0, 75.0]
    assert [row["bar"] for row in rows] == pytest.approx([100 / 3, 100.0])


@pytest.mark.parametrize(
    ("seconds", "words"), [(0.24, "0.2 s"), (59.4, "59 s"), (59.6, "1 min 00 s"), (3725, "1 h 02 min")]
)
def test_durations_are_said_as_people_say_them(seconds: float, words: str):
    assert duration(seconds) == words
