"""The printable page of an audit: safe with any text, whole at any width, and with nothing that runs or loads."""

from __future__ import annotations

import base64
import re
from pathlib import Path

import pytest

from registry.audit_page import BAD, GOOD, Badge, IdList, Page, Section, write_page

CASES = [f"case-{number:05d}" for number in range(3000)]


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("page") / "audit.html"
    rows = [[f"dataset {number}", None, True, number == 3 or None, 10 * number] for number in range(60)]
    write_page(
        path,
        Page(
            eyebrow="What made this model",
            title="m version 3",
            badges=[Badge("can be rebuilt", GOOD), Badge("withdrawn cases in its data: 1", BAD)],
            facts=[("Weights, SHA-256", "ab" * 32), ("Nothing", None)],
            sections=[
                Section("Data", "A note.", ["dataset", "none", "there", "maybe", "cases"], rows, ["cases"], [3]),
                Section("Command", text="git checkout data-v1\n" + "x" * 300),
                Section("Every case", lists=[IdList("d, train", CASES, frozenset({"case-00007"}))]),
                Section("Hostile", columns=["name"], rows=[["<script>alert(1)</script><img src=http://x/y>"]]),
            ],
            footer="Made by a test.",
        ),
    )
    return path


def test_text_of_data_is_never_markup_and_the_page_loads_nothing(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert "<script" not in text
    assert "<img" not in text
    assert re.findall(r"""(?:src|href)="([^"]*)""", text) == ["data:,"]
    assert "&lt;script&gt;" in text
    assert text.count("</li>") == len(CASES)
    assert text.count('<li class="bad">case-00007</li>') == 1


def test_a_browser_shows_it_at_phone_and_desktop_width_and_prints_every_case(page: Path) -> None:
    browsers = pytest.importorskip("tests.browser")
    with browsers.browser() as chrome:
        for size in (browsers.PHONE, browsers.DESKTOP):
            chrome.open(page, size)
            assert chrome.requests() == [page.as_uri()]
            assert chrome.console() == []
            wide, window = chrome.script(
                "return [document.documentElement.scrollWidth, document.documentElement.clientWidth]"
            )
            assert wide <= window
        printed = base64.b64decode(chrome.driver.print_page())
        # 3,000 cases in four columns and 60 rows: several pages, and not one each case
        assert 3 <= len(re.findall(rb"/Type\s*/Page\b", printed)) <= 25
