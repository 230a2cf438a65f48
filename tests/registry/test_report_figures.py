"""What the report says of an evaluation: worked by hand, and nothing drawn where nothing was measured."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from infra.storage import read_json
from registry.charts import axis_of
from registry.report.differences import forests, verdict
from registry.report.extras import presence_table, surface_table, union_table, unmeasured_volumes
from registry.report.failures import failure_rows
from registry.report.gallery import MOST_BYTES, thumbnails
from registry.report.page import measured
from registry.report.pairs import Pairs, read_pairs
from registry.report.presence import reliability
from registry.report.sizes import size_rows
from registry.report.tables import concept_rows, dataset_rows, modality_rows
from registry.report.words import between, breakable, figure, percent, signed
from tests.registry import report_samples, samples
from tests.registry.report_samples import pair_rows


def pairs_of(tmp_path: Path, rows: list[dict[str, Any]]) -> dict[str, Pairs]:
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "evaluation.parquet")
    return read_pairs(tmp_path)


def difference(name: str = "", level: str = "all", value: float = 0.1, **given: Any) -> dict[str, Any]:
    return {"against": "start", "level": level, "name": name, "external": False, "metric": "dice_text", "before": 0.4,
            "after": 0.4 + value, "difference": value, "interval": [value - 0.05, value + 0.05], "groups": 9,
            "pairs": 30, **given}  # fmt: skip


def test_an_evaluation_of_the_first_schema_has_no_plot_and_no_empty_section(tmp_path: Path):
    candidate = samples.write_candidate(tmp_path / "candidate")
    evaluation = samples.write_evaluation(tmp_path / "evaluation", candidate, pictures=0)
    figures = samples.evaluation("a" * 64, "b" * 64)
    found = measured(evaluation, figures, samples.datasets())
    for part in (
        "forests",
        "sizes",
        "failures",
        "surfaces",
        "instances",
        "unions",
        "synonyms",
        "modalities",
        "gallery",
    ):
        assert not found[part], part
    assert found["reliability"] is None
    html = report_samples.write_page(tmp_path, evaluation, candidate).read_text(encoding="utf-8")
    for absent in ("h-forest", "h-sizes", "h-failures", "h-surfaces", "h-instances", "h-synonyms", "h-gallery"):
        assert f'id="{absent}"' not in html


@pytest.mark.parametrize(
    ("value", "ends", "lower_is_better", "word"),
    [
        (0.1, (0.05, 0.15), False, "better"),
        (-0.1, (-0.15, -0.05), False, "worse"),
        (0.1, (-0.01, 0.21), False, "unclear"),
        (0.1, (0.0, 0.2), False, "unclear"),
        (0.1, None, False, "unclear"),
        (0.0, (0.0, 0.0), False, "equal"),
        (0.0, (-0.1, 0.1), False, "unclear"),
        (0.0, None, False, "unclear"),
        (-2.0, (-3.0, -1.0), True, "better"),
        (2.0, (1.0, 3.0), True, "worse"),
    ],
)
def test_a_difference_is_told_only_where_its_whole_interval_is_on_one_side(
    value: float, ends: tuple[float, float] | None, lower_is_better: bool, word: str
):
    assert verdict(value, ends, lower_is_better=lower_is_better) == word


def test_a_forest_has_external_sets_apart_the_champion_first_and_one_scale():
    paired = [
        difference(),
        difference("CT", "modality", -0.2),
        difference("US", "modality", 0.3),
        difference("liver", "concept", 0.0, interval=None),
        difference(value=0.05, external=True),
        difference(value=0.02, against="champion"),
        difference("missing", "dataset", float("nan")),
    ]
    champion, start = forests(paired)
    assert (champion["against"], start["against"]) == ("the champion", "its start checkpoint")
    assert [group["title"] for group in start["groups"]] == ["All", "All, external sets", "By modality", "By concept"]
    assert [row["name"] for row in start["groups"][2]["rows"]] == ["US", "CT"]
    assert start["groups"][3]["rows"][0]["low"] is None
    assert start["groups"][0]["rows"][0]["name"] == "Datasets trained on"
    rows = [row for group in start["groups"] for row in group["rows"]]
    assert all(0 <= row["low"] <= row["at"] <= row["high"] <= 100 for row in rows if row["low"] is not None)
    assert start["groups"][3]["rows"][0]["at"] == pytest.approx(start["axis"].at(0))


@pytest.mark.parametrize("values", [[0.0], [0.0, 0.0], [-0.3, 0.0, 0.21], [0.0, 12.0], [-1e-6, 0.0]])
def test_an_axis_holds_all_its_values_between_round_ends(values: list[float]):
    axis = axis_of(values)
    assert all(0 <= axis.at(value) <= 100 for value in values)
    assert axis.ticks[0].at == 0
    assert axis.ticks[-1].at == 100
    assert 2 <= len(axis.ticks) <= 9


def test_dice_by_size_is_of_present_pairs_and_of_the_sets_that_were_asked_for(tmp_path: Path):
    rows = (
        pair_rows("A", [0.2, 0.4, 0.6, 0.8], truth_px=50)
        + pair_rows("A", [0.9], truth_px=100)
        + pair_rows("A", [0.1, 0.3], truth_px=50, model="before")
        + pair_rows("A", [0.0], truth_px=0, present=False)
        + pair_rows("A", [1.0], truth_px=50, prompt="box")
        + pair_rows("B", [0.0], truth_px=2_000_000)
    )
    small, middle = size_rows(pairs_of(tmp_path, rows), {"A"})
    assert (small["label"], small["pairs"]) == ("below 100 px", 4)
    assert (small["before"], small["after"], small["median"]) == pytest.approx((0.2, 0.5, 0.5))
    assert (small["low"], small["high"]) == pytest.approx((0.35, 0.65))
    assert (middle["label"], middle["pairs"], middle["before"]) == ("100 to 999 px", 1, None)
    (large,) = size_rows(pairs_of(tmp_path, rows), {"B"})
    assert large["label"] == "100,000 px and more"
    assert size_rows({}, {"A"}) == []


def test_failures_are_shares_of_the_pairs_that_could_fail_so():
    figures = {
        "decision": {"presence_threshold": 0.35},
        "datasets": {
            "A": {"concepts": {"x": {"pairs": 8}, "y": {"pairs": 2}}, "absent_pairs": 5},
            "B": {"concepts": {"x": {"pairs": 10}}, "absent_pairs": 0},
            "C": {"concepts": {"x": {"pairs": 100}}, "absent_pairs": 9},
        },
        "failures": {
            "A": {"after": {"missed": 3, "false_alarm": 1}, "before": {"missed": 9}},
            "B": {"after": {"missed": 5, "a_new_reason": 1}, "before": {}},
            "C": {"after": {"missed": 50}},
        },
    }
    rows = {row["reason"]: row for row in failure_rows(figures, {"A", "B"})}
    missed = rows["Missed"]
    assert (missed["after"], missed["before"], missed["champion"], missed["of"]) == (8, 9, None, 20)
    assert missed["share"] == pytest.approx(0.4)
    assert [one["name"] for one in missed["where"]] == ["B", "A"]
    assert "threshold of 0.35" in missed["meaning"]
    assert (rows["False alarm"]["of"], rows["False alarm"]["share"]) == (5, 0.2)
    assert rows["A new reason"]["after"] == 1
    assert "False alarm" not in {row["reason"] for row in failure_rows(figures, {"B"})}
    assert failure_rows({**figures, "failures": {}}, {"A"}) == []


def test_presence_that_means_what_it_says_lies_on_the_diagonal(tmp_path: Path):
    rows = []
    for said in (0.05, 0.25, 0.85):
        for number in range(20):
            rows += pair_rows("A", [0.5], presence=said, present=number < said * 20)
    found = reliability(pairs_of(tmp_path, rows), {"A"})
    assert found is not None
    assert [(one["said"], one["found"], one["pairs"]) for one in found["bins"]] == [
        pytest.approx((said, said, 20)) for said in (0.05, 0.25, 0.85)
    ]
    assert (found["present"], found["absent"]) == (23, 37)
    assert reliability(pairs_of(tmp_path, pair_rows("A", [0.5])), {"A"}) is None  # nothing absent was asked


def test_intervals_stand_beside_the_means_they_are_of(tmp_path: Path):
    candidate = samples.write_candidate(tmp_path / "candidate")
    evaluation = report_samples.write_full_evaluation(tmp_path / "evaluation", candidate, pictures=0)
    figures = read_json(evaluation / "evaluation.json")
    rows = {row["name"]: row for row in dataset_rows(figures, samples.datasets())}
    assert rows["BUSI"]["interval"] == pytest.approx((0.285, 0.405))
    assert rows["Sunnybrook"]["interval"] is None
    concepts = {(row["dataset"], row["concept"]): row for row in concept_rows(figures, samples.datasets())}
    assert concepts["dcmqi", "liver"]["interval"] == pytest.approx((0.41, 0.53))
    assert ("Sunnybrook", "left ventricle") not in concepts
    modalities = {row["name"]: row for row in modality_rows(figures)}
    assert modalities["CT"]["interval"] is not None
    assert modalities["microscopy"]["external"]
    found = measured(evaluation, figures, samples.datasets())
    assert found["summary_interval"] is not None
    assert found["external_interval"] is not None
    assert [part["title"] for part in found["sizes"]] == ["Datasets trained on", "External sets"]
    assert {row["name"] for part in found["failures"][1:] for row in part["rows"][0]["where"]} == {
        "CHASE_DB1",
        "DSB2018",
    }


def test_tables_leave_out_what_was_not_measured():
    figures = {
        "presence": {
            "auroc": 0.8,
            "ece": None,
            "models": {"after": {"auroc": 0.8, "auroc_interval": [0.7, 0.9], "ece": None}},
            "datasets": {"A": {"after": {"auroc": None}}, "B": {"after": {"auroc": 0.6}}},
        },
        "surface": {
            "A": {"tolerance_mm": 2, "volumes": 3, "not_measured": {"no spacing": 2}, "models": {"before": {}}},
        },
        "aggregates": [
            {"level": "dataset", "name": "A", "model": "after", "prompt": "text", "metric": "dice", "value": 1}
        ],
    }
    table = presence_table(figures, ["B"])
    assert table is not None
    assert table["heads"] == ["AUROC"]
    assert [(row["name"], row["external"]) for row in table["rows"]] == [("All datasets", False), ("B", True)]
    assert table["rows"][0]["cells"][0]["interval"] == (0.7, 0.9)
    assert presence_table({}, []) is None
    assert union_table(figures) is None  # one column compares nothing
    assert unmeasured_volumes(figures) == ["A: 2 volumes – no spacing"]
    assert surface_table(figures) is surface_table({}) is None


def test_pictures_stay_within_what_a_page_may_weigh(tmp_path: Path):
    files = []
    for number in range(4):
        noise = np.random.default_rng(number).integers(0, 255, (256, 780, 3), dtype=np.uint8)
        Image.fromarray(noise).save(tmp_path / f"{number}.png")
        files.append(tmp_path / f"{number}.png")
    whole = sum(map(len, thumbnails(files)))
    small = sum(map(len, thumbnails(files, most_bytes=whole // 3)))
    assert whole <= MOST_BYTES
    assert small <= whole // 3
    assert thumbnails([]) == []


def test_a_page_with_a_full_gallery_fits_a_mailbox(tmp_path: Path):
    candidate = samples.write_candidate(tmp_path / "candidate")
    evaluation = report_samples.write_full_evaluation(tmp_path / "evaluation", candidate, pictures=72)
    page = report_samples.write_page(tmp_path, evaluation, candidate)
    html = page.read_text(encoding="utf-8")
    assert html.count("data:image/webp") == 72
    assert page.stat().st_size < 6_000_000
    order = [html.index(f"<h3>{title}") for title in ("Worst 20", "Median 20", "Best 20", "Dataset by dataset")]
    assert order == sorted(order)


def test_figures_are_said_in_one_way():
    assert figure(None) == figure(float("nan")) == figure(True) == "–"
    assert (figure(-0.125, 2), signed(0.004), signed(-0.004), signed(-0.26)) == ("−0.12", "0.00", "0.00", "−0.26")
    shares = [percent(value).replace("\N{NO-BREAK SPACE}", " ") for value in (0, 0.004, 0.1249, None)]
    assert shares == ["0 %", "0.4 %", "12 %", "–"]
    assert between([0.4, 0.2]) == "0.20 to 0.40"
    assert between([0.4, None]) == between(None) == between([float("nan"), 1]) == ""


def test_a_name_breaks_without_changing():
    name = "COVID19_CXR_" + "x" * 60 + "<b>&"
    marked = str(breakable(name))
    assert "<b>" not in marked
    assert marked.replace("<wbr>", "").replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&") == name
    assert max(map(len, marked.split("<wbr>"))) < 40
