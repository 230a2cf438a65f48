"""The report in a real browser: opened from disk, on a phone and on a desk, without network and without errors."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.browser import DESKTOP, PHONE, Browser, browser
from tests.registry import report_samples, samples

SIZES = [PHONE, DESKTOP]


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    candidate = samples.write_candidate(folder / "candidate")
    evaluation = report_samples.write_full_evaluation(folder / "evaluation", candidate)
    return report_samples.write_page(folder, evaluation, candidate)


@pytest.fixture(scope="module")
def chrome() -> Iterator[Browser]:
    with browser() as opened:
        yield opened


def column(chrome: Browser, table: str, title: str) -> list[str]:
    """Cells of a table's column as they stand, from top to bottom."""
    found: list[str] = chrome.script(
        """
        const table = document.querySelector(`table[aria-label="${arguments[0]}"]`);
        const at = [...table.tHead.rows[0].cells].findIndex((th) => th.textContent.trim() === arguments[1]);
        return [...table.tBodies[0].rows].map((row) => row.cells[at].firstChild.textContent.trim());
        """,
        table,
        title,
    )
    return found


def header(chrome: Browser, table: str, title: str) -> Any:
    return chrome.script(
        """
        const table = document.querySelector(`table[aria-label="${arguments[0]}"]`);
        return [...table.tHead.rows[0].cells].find((th) => th.textContent.trim() === arguments[1]);
        """,
        table,
        title,
    )


@pytest.mark.parametrize("size", SIZES, ids=["phone", "desktop"])
def test_it_opens_from_disk_asks_for_nothing_and_complains_of_nothing(
    page: Path, chrome: Browser, size: tuple[int, int]
):
    chrome.open(page, size)
    assert chrome.script("return document.readyState") == "complete"
    assert chrome.driver.title == "demo version 3 · Segfoundry report"
    assert chrome.requests() == [page.as_uri()]
    assert chrome.console() == []
    assert chrome.script("return [...document.images].every((one) => one.naturalWidth > 0)")


@pytest.mark.parametrize("width", [320, 390, 700, 970, 985, 1100, 1190, 1280])
def test_nothing_has_to_be_scrolled_sideways(page: Path, chrome: Browser, width: int):
    chrome.open(page, (width, 900))
    chrome.script("for (const one of document.querySelectorAll('details')) one.open = true")
    assert chrome.too_wide() == []


def test_a_table_sorts_by_click_and_says_so(page: Path, chrome: Browser):
    chrome.open(page)
    given = column(chrome, "Datasets", "Dice after")
    numbers = sorted((one for one in given if one != "–"), key=float)
    th = header(chrome, "Datasets", "Dice after")
    assert th.get_attribute("aria-sort") == "none"
    th.find_element("tag name", "button").click()
    assert th.get_attribute("aria-sort") == "ascending"
    # what was not measured comes last, both ways
    assert column(chrome, "Datasets", "Dice after") == [*numbers, "–"]
    th.find_element("tag name", "button").click()
    assert th.get_attribute("aria-sort") == "descending"
    assert column(chrome, "Datasets", "Dice after") == [*reversed(numbers), "–"]
    other = header(chrome, "Datasets", "Dataset")
    other.find_element("tag name", "button").click()
    assert th.get_attribute("aria-sort") == "none"
    assert column(chrome, "Datasets", "Dataset") == sorted(column(chrome, "Datasets", "Dataset"), key=str.lower)
    assert "Sorted by Dataset" in chrome.script("return document.querySelector('[role=status]').textContent")
    assert sorted(column(chrome, "Datasets", "Dice after")) == sorted(given)


@pytest.mark.parametrize("key", ["ENTER", "SPACE"])
def test_a_table_sorts_by_keyboard(page: Path, chrome: Browser, key: str):
    from selenium.webdriver.common.action_chains import ActionChains
    from selenium.webdriver.common.keys import Keys

    chrome.open(page)
    first, second = (header(chrome, "Datasets", title) for title in ("Dataset", "Modality"))
    chrome.script("arguments[0].querySelector('button').focus()", first)
    ActionChains(chrome.driver).send_keys(Keys.TAB).send_keys(getattr(Keys, key)).perform()
    assert chrome.script("return document.activeElement.closest('th') === arguments[0]", second)
    assert second.get_attribute("aria-sort") == "ascending"
    found = column(chrome, "Datasets", "Modality")
    assert found == sorted(found, key=str.lower)
    ActionChains(chrome.driver).send_keys(getattr(Keys, key)).perform()
    assert second.get_attribute("aria-sort") == "descending"


def test_on_a_phone_a_choice_sorts(page: Path, chrome: Browser):
    from selenium.webdriver.support.ui import Select

    chrome.open(page, PHONE)
    label = chrome.script(
        "return document.querySelector('table[aria-label=\"Concepts\"]').parentElement.previousElementSibling"
    )
    assert label.is_displayed()
    Select(label.find_element("tag name", "select")).select_by_visible_text("Dice after ↓")
    numbers = [float(one) for one in column(chrome, "Concepts", "Dice after")]
    assert numbers == sorted(numbers, reverse=True)
    chrome.open(page, DESKTOP)
    assert not chrome.script("return [...document.querySelectorAll('.sortby')].some((one) => one.offsetParent)")


def test_names_from_outside_run_nothing_and_are_read_as_they_are(page: Path, chrome: Browser):
    chrome.open(page)
    assert chrome.script("return window.taken === undefined && document.scripts.length === 1")
    assert report_samples.HOSTILE in chrome.script("return document.body.textContent")
    # and were a name ever to slip through, the page's own policy refuses what is not its one script
    chrome.script(
        "const s = document.createElement('script'); s.textContent = 'window.taken = 2'; document.body.append(s)"
    )
    assert chrome.script("return window.taken === undefined")


def test_without_script_the_page_says_the_same(page: Path, chrome: Browser):
    chrome.open(page)
    rows = chrome.script("return [...document.querySelectorAll('td, th')].map((one) => one.textContent.trim())")
    chrome.driver.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    try:
        chrome.open(page)
        found = chrome.driver.execute_cdp_cmd("DOM.getDocument", {"depth": 1})
        html = chrome.driver.execute_cdp_cmd("DOM.getOuterHTML", {"nodeId": found["root"]["nodeId"]})["outerHTML"]
    finally:
        chrome.driver.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})
    body = html[html.index("<body") : html.index('<script>"use strict"')]
    assert "<button" not in body
    assert "<select" not in body
    assert html.count("<td") + html.count("<th ") == len(rows)


def test_it_prints_with_what_was_folded_and_within_the_paper(page: Path, chrome: Browser):
    chrome.open(page, (700, 900))  # about A4 between its margins
    chrome.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    try:
        chrome.script("dispatchEvent(new Event('beforeprint'))")
        assert chrome.too_wide() == []
        assert chrome.script("return document.querySelectorAll('details:not([open])').length") == 0
        heads = "[...document.querySelectorAll('table.cards thead')]"
        assert chrome.script(f"return {heads}.every((one) => getComputedStyle(one).position === 'static')")
        chrome.script("dispatchEvent(new Event('afterprint'))")
        assert chrome.script("return document.querySelectorAll('details:not([open])').length") > 0
    finally:
        chrome.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})


def test_the_marks_of_the_forest_stand_where_their_numbers_say(page: Path, chrome: Browser):
    chrome.open(page)
    rows = chrome.script(
        """
        const rows = [...document.querySelectorAll('.forest .frow:not(.fhead)')].filter((one) => one.offsetParent);
        return rows.map((row) => {
          const middle = (part) => {
            const box = row.querySelector(part)?.getBoundingClientRect();
            return box && [box.left, box.right];
          };
          return {value: row.querySelector('.n b').textContent, word: row.querySelector('.fword').textContent,
                  zero: middle('.zero'), mark: middle('.mark'), whisker: middle('.whisker') ?? null};
        });
        """
    )
    assert rows
    for row in rows:
        value = float(row["value"].replace("−", "-"))
        zero, mark = sum(row["zero"]) / 2, sum(row["mark"]) / 2
        assert (mark > zero) == (value > 0) or abs(mark - zero) < 3
        if row["whisker"]:
            low, high = row["whisker"]
            assert low <= mark <= high
            assert (low > zero + 1) == ("better" in row["word"]) or abs(low - zero) < 1.5
            assert (high < zero - 1) == ("worse" in row["word"]) or abs(high - zero) < 1.5
    assert any(row["whisker"] is None for row in rows)  # a single group has no interval


def test_the_browser_dies_with_the_tests_that_started_it():
    code = (
        "import time\nfrom tests.browser import browser\n"
        "with browser() as one:\n    print(one.driver.service.process.pid, flush=True)\n    time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, env=os.environ) as process:
        assert process.stdout is not None
        said = process.stdout.readline()
        if not said:
            pytest.skip("no browser on this machine")
        driver = psutil.Process(int(said))
        family = [driver, *driver.children(recursive=True)]
        assert len(family) > 1
        process.send_signal(signal.SIGKILL)
    deadline = time.monotonic() + 10
    while any(one.is_running() and one.status() != psutil.STATUS_ZOMBIE for one in _alive(family)):
        assert time.monotonic() < deadline
        time.sleep(0.1)


def _alive(family: list[psutil.Process]) -> list[psutil.Process]:
    return [one for one in family if one.is_running()]
