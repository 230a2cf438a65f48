"""The data card: the figures of dataset.json, pictures without the test set, one file, readable on a phone."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from preprocessing import card_figures, fingerprint, hashes, ontology, schema
from preprocessing.build import build_dataset
from preprocessing.card_page import card_page, with_leakage
from preprocessing.card_pictures import pictures
from preprocessing.cards import ByValue, load_card
from preprocessing.leakage import KINDS, row_of
from preprocessing.quality import Account
from tests.preprocessing.made_version import row, version
from tests.preprocessing.test_build import FLAT, PARAMS, inventory_of

NOTHING = Account(0, frozenset(), frozenset(), {}, ())


class _Page(HTMLParser):
    """Cells of tables by id, the numbers of the tiles, and every address that a browser would fetch."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tables: dict[str, list[list[str]]] = {}
        self.tiles: dict[str, int] = {}
        self.fetched: list[str] = []
        self._table, self._in_tile, self._text = "", "", ""
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        told = dict(attributes)
        if tag == "table":
            self._table = told.get("id") or "other"
            self.tables[self._table] = []
        elif tag == "tr":
            self.tables[self._table].append([])
        elif tag in ("td", "th", "b", "span"):
            self._text = "" if tag != "span" or not self._table else self._text
        self.fetched += [told.get("src") or ""] if told.get("src") else []
        self.fetched += [told.get("href") or ""] if tag == "link" else []

    def handle_endtag(self, tag: str) -> None:
        if tag == "table":
            self._table = ""
        elif tag in ("td", "th"):
            self.tables[self._table][-1].append(" ".join(self._text.split()))
        elif tag == "b" and not self._table and self._text.strip().isdigit():
            self._in_tile = self._text
        elif tag == "span" and self._in_tile:
            self.tiles[self._text] = int(self._in_tile)
            self._in_tile = ""

    def handle_data(self, data: str) -> None:
        self._text += data


def _page(folder: Path, concepts: dict[int, str], quarantine: list[dict[str, str]] | None = None) -> str:
    card = replace(FLAT, labels=ByValue(concepts))
    manifest = schema.read_manifest(folder)
    counts = dict.fromkeys(
        ("cases_found", "cases_kept", "files_found", "files_used", "files_quarantined", "files_not_data"), 1
    )
    counts |= {"samples": manifest.num_rows, "objects": 0, "cases_quarantined": len(quarantine or [])}
    report = {
        "source_kind": "mirror",
        "counts": counts,
        "splits": dict.fromkeys(schema.SPLITS, 0),
        "manifest_digest": "m",
        "recipe_sha256": "r",
    }
    refused = pa.Table.from_pylist(quarantine or [], schema=schema.QUARANTINE_SCHEMA)
    return card_page(card, report, manifest, refused, NOTHING, folder)


def _blob(seed: int, size: int = 40) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    rng = np.random.default_rng(seed)
    mask = np.zeros((size, size), dtype=bool)
    mask[5 : 15 + seed % 5, 8:20] = True
    return rng.integers(0, 256, (size, size, 3), dtype=np.uint8), mask


def test_the_page_has_the_figures_of_dataset_json(mirror: Path, tmp_path: Path) -> None:
    card, root, out = load_card("pyradiomics"), mirror / "pyradiomics", tmp_path / "data"
    options: dict[str, Any] = {"pseudonym_key": b"k", "case_cache": None, "source_kind": "mirror"}
    report = build_dataset(card, root, inventory_of(root), out, PARAMS, **options)
    text = (out / schema.CARD_FILE).read_text(encoding="utf-8")
    page, counts = _Page(text), report["counts"]
    assert page.tiles == {
        "samples": counts["samples"],
        "cases": counts["cases_kept"],
        "objects": counts["objects"],
        "quarantined cases": counts["cases_quarantined"],
        **{f"{split} samples": count for split, count in report["splits"].items()},
    }
    header, *rows, total = page.tables["concepts"]
    assert header == ["concept", *schema.SPLITS, "objects", "absent"]
    assert total[1:5] == [*map(str, report["splits"].values()), str(counts["objects"])]
    assert sum(int(one[4]) for one in rows) == counts["objects"]
    manifest = schema.read_manifest(out).to_pylist()
    for one, concept in zip(rows, card.concepts, strict=True):
        shown = [item["split"] for item in manifest if concept in {part["concept"] for part in item["objects"]}]
        assert one[0].startswith(concept)
        assert one[1:4] == [str(shown.count(split)) for split in schema.SPLITS]
        assert one[5] == str(sum(concept in item["absent"] for item in manifest))
    quarantined = pq.read_table(out / schema.QUARANTINE_FILE).to_pylist()
    assert [one[:3] for one in page.tables["quarantine"][1:]] == [
        [item["case_id"], item["file"], item["reason"]] for item in quarantined
    ]
    figures = json.loads((out / schema.FINGERPRINT_FILE).read_text(encoding="utf-8"))["figures"]
    header, *rows = page.tables["fingerprint"]
    assert header == ["figure", "p05", "p25", "p50", "p75", "p95", "unknown"]
    assert [one[0] for one in rows] == [f"{name.replace('_', ' ')} {one['unit']}" for name, one in figures.items()]
    for one, told in zip(rows, figures.values(), strict=True):
        assert one[6] == str(told["missing"])
        shown = [told[key] for key in header[1:6]]
        assert one[1:6] == ["–" if value is None else f"{value:.4g}" for value in shown]
    assert any("–" not in one for one in rows)
    assert report["manifest_digest"] in text
    assert card.citation.split(",")[0] in text
    assert all(address.startswith("data:") for address in page.fetched)
    assert "<script" not in text
    assert "@import" not in text
    assert "url(" not in text
    assert str(tmp_path) not in text


def test_pictures_never_show_the_test_set(tmp_path: Path) -> None:
    rows = []
    for index, split in enumerate(("test", "train", "train", "val", "test", "test")):
        pixels, mask = _blob(index)
        concepts = {"polyp": [mask]} if index < 3 else {"lesion": [mask]} if index < 5 else {"liver": [mask]}
        rows.append(row(f"c{index}", pixels, concepts, split=split))
    folder = version(tmp_path / "made", rows)
    shown = pictures(("lesion", "liver", "polyp"), schema.read_manifest(folder), folder)
    assert {(one["name"], one["split"]) for one in shown} == {
        ("made/c1", "train"), ("made/c2", "train"), ("made/c3", "val")
    }  # fmt: skip
    assert shown == pictures(("lesion", "liver", "polyp"), schema.read_manifest(folder), folder)
    only = version(tmp_path / "only", [one for one in rows if one["split"] == "test"])
    text = _page(only, {1: "polyp", 2: "lesion", 3: "liver"})
    assert "test samples are not looked at" in text
    assert "data:image" not in text


def test_a_card_of_many_concepts_stays_small(tmp_path: Path) -> None:
    names = {index + 1: name for index, name in enumerate(_known_concepts(40))}
    rows = [row(f"c{number}", _blob(number, 512)[0], {name: [_blob(number, 512)[1]]}) for number, name in names.items()]
    folder = version(tmp_path / "made", rows)
    refused = [
        {"dataset": "made", "case_id": f"q{index}", "file": "f", "reason": "mask_size", "expected": "e", "found": "g"}
        for index in range(5000)
    ]
    text = _page(folder, names, refused)
    assert 100_000 < len(text.encode()) < 1_500_000
    assert "mask_size: 5000" in text
    assert "and 4900 more in quarantine.parquet" in text


def _known_concepts(count: int) -> list[str]:
    return sorted(ontology.load())[:count]


def test_what_files_say_is_text_and_never_markup(tmp_path: Path) -> None:
    pixels, mask = _blob(1)
    folder = version(tmp_path / "made", [row("<img src=x onerror=1>", pixels, {"polyp": [mask]})])
    refused = {
        "dataset": "made",
        "case_id": "<b>",
        "file": "</td><script>",
        "reason": "r",
        "expected": "e",
        "found": "g",
    }
    text = _page(folder, {1: "polyp"}, [refused])
    assert "<script" not in text
    assert "<img src=x" not in text
    assert "&lt;/td&gt;&lt;script&gt;" in text


def test_the_row_of_the_leakage_matrix_stands_on_the_page_of_a_workspace(tmp_path: Path) -> None:
    pixels, mask = _blob(1)
    own = _page(version(tmp_path / "made", [row("a", pixels, {"polyp": [mask]})]), {1: "polyp"})
    assert "leakage" not in _Page(own).tables
    assert "segfoundry data leakage" in own
    one = dict.fromkeys(KINDS, 0)
    matrix = [
        {"train": "made", "part": "train", "held_out": "Other", "split": "test", **one, "groups": 2},
        {"train": "made", "part": "val", "held_out": "Other", "split": "test", **one, "groups": 1, "near": 3},
        {"train": "<b>", "part": "train", "held_out": "made", "split": "val", **one, "volumes": 1},
        {"train": "<b>", "part": "train", "held_out": "Other", "split": "val", **one, "pixels": 7},
    ]
    found = {"ok": False, "datasets": ["<b>", "Other", "made"], "matrix": matrix, "examples": []}
    page = with_leakage(own, row_of(found, "made"))
    assert _Page(page).tables["leakage"][1:] == [
        ["made", "0", "0"], ["<b>", "0", "1 volumes"], ["Other", "3 groups, 3 near", "0"]
    ]  # fmt: skip
    assert "Shared across splits with &lt;b&gt;, Other: training refuses" in page
    assert with_leakage(page, row_of(found, "made")) == page
    clean = with_leakage(page, row_of({**found, "matrix": matrix[3:]}, "made"))
    assert "with the 2 other datasets beside it" in clean
    assert _Page(clean).tables["leakage"][1:] == [["made", "0", "0"], ["<b>", "0", "0"], ["Other", "0", "0"]]
    older = own.replace("<!-- leakage -->", "")
    assert _Page(with_leakage(older, row_of(found, "made"))).tables["leakage"][2] == ["<b>", "0", "1 volumes"]


@given(st.lists(st.floats(0.01, 5000, allow_nan=False), min_size=1, max_size=200))
def test_every_value_is_in_the_bin_that_is_named(values: list[float]) -> None:
    found = card_figures._of("x", values, "n")
    assert sum(found.counts) == len(values)
    assert 1 <= len(found.counts) <= 14
    if len(found.counts) > 1:
        edges = [*map(float, found.labels), float(found.last)]
        assert edges[0] <= min(values) + 1e-3 * max(values)
        assert max(values) <= edges[-1] * (1 + 1e-3)
        assert found.counts[0] > 0
        assert found.counts[-1] > 0


@given(st.lists(st.integers(1, 10**7), min_size=1, max_size=100))
def test_object_sizes_lie_in_bins_that_double(values: list[int]) -> None:
    found = card_figures._of_powers("x", values, "n")
    edges = [*map(int, found.labels), int(found.last)]
    for count, low, high in zip(found.counts, edges, edges[1:], strict=False):
        assert high == 2 * low
        assert count == sum(low <= value < high for value in values)
    assert sum(found.counts) == len(values)


@pytest.mark.skipif(shutil.which("chromium") is None, reason="no chromium on PATH to lay the page out")
@pytest.mark.parametrize("width_px", [390, 1200])
def test_nothing_is_wider_than_the_screen(width_px: int, tmp_path: Path) -> None:
    rows = [row(f"{'a-very-long-case-name-' * 5}{index}", *_wide(index)) for index in range(4)]
    folder = version(tmp_path / "made", rows)
    refused = {"dataset": "made", "case_id": "c" * 120, "file": "f/" * 90, "reason": "r", "expected": "e", "found": "g"}
    found = fingerprint.fingerprint(
        schema.read_manifest(folder), pq.read_table(folder / schema.CASES_FILE), hashes.of_version(folder)
    )
    (folder / schema.FINGERPRINT_FILE).write_text(json.dumps(found), encoding="utf-8")
    row_told = {"with": "A_dataset_of_a_long_name" * 2, "out": "12345 groups, 12345 contents, 12345 near", "in": ""}
    page = with_leakage(
        _page(folder, {1: "polyp", 2: "lesion"}, [refused]), {"ok": False, "said": "s" * 90, "rows": [row_told]}
    )
    assert {"fingerprint", "leakage"} <= set(_Page(page).tables)
    (tmp_path / "card.html").write_text(page, encoding="utf-8")
    # A frame of the wanted width: browsers refuse windows as narrow as a phone.
    (tmp_path / "frame.html").write_text(
        f"<iframe id=f src=card.html style='width:{width_px}px;height:900px;border:0'></iframe><script>"
        "f.onload = () => { const d = f.contentDocument.documentElement;"
        "document.title = `wide ${d.scrollWidth} of ${d.clientWidth}`; }</script>"
    )
    done = subprocess.run(
        ["chromium", "--headless", "--no-sandbox", "--disable-gpu", "--allow-file-access-from-files",
         f"--user-data-dir={tmp_path / 'profile'}", "--virtual-time-budget=4000", "--dump-dom",
         (tmp_path / "frame.html").as_uri()],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    told = re.search(r"<title>wide (\d+) of (\d+)</title>", done.stdout)
    assert told, done.stdout[-300:] + done.stderr[-300:]
    assert int(told[2]) in range(width_px - 20, width_px + 1)
    assert int(told[1]) <= int(told[2])


def _wide(index: int) -> tuple[np.ndarray[Any, Any], dict[str, list[np.ndarray[Any, Any]]]]:
    pixels, mask = _blob(index)
    return pixels, {"polyp" if index % 2 else "lesion": [mask]}
