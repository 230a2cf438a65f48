"""A real headless Chromium on a page of a file; it dies with the process that started it, also by SIGKILL."""

from __future__ import annotations

import ctypes
import json
import shutil
import signal
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--disable-breakpad",
    "--remote-debugging-pipe",  # a browser whose driver was killed sees the end of the pipe and ends
)
PHONE, DESKTOP = (390, 844), (1280, 900)
_PR_SET_PDEATHSIG = 1


class Browser:
    """What a person with this browser would see and do; `driver` is selenium's."""

    def __init__(self, driver: Any) -> None:
        self.driver = driver

    def open(self, page: Path, size: tuple[int, int] = DESKTOP) -> None:
        """Open a page from disk at a size in CSS pixels; logs of pages before are dropped."""
        width, height = size
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 700}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        for log in ("performance", "browser"):
            self.driver.get_log(log)
        self.driver.get(page.as_uri())

    def script(self, code: str, *given: Any) -> Any:
        return self.driver.execute_script(code, *given)

    def requests(self) -> list[str]:
        """Addresses asked for since the page was opened, those inside the page (data:) left out."""
        messages = (json.loads(line["message"])["message"] for line in self.driver.get_log("performance"))
        asked = (one["params"]["request"]["url"] for one in messages if one["method"] == "Network.requestWillBeSent")
        return [address for address in asked if not address.startswith("data:")]

    def console(self) -> list[str]:
        """Lines of the console since the page was opened."""
        return [line["message"] for line in self.driver.get_log("browser")]

    def too_wide(self) -> list[str]:
        """What reaches beyond the right edge of the window, or would have to be scrolled sideways to be read."""
        found: list[str] = self.script(
            """
            const edge = document.documentElement.clientWidth + 0.5;
            const named = (one) => `${one.tagName}.${one.className}: ${one.textContent.trim().slice(0, 40)}`;
            const style = (one) => one ? getComputedStyle(one) : {};
            const hidden = (one) => style(one.closest(".sr, thead")).position === "absolute";
            const all = [...document.body.querySelectorAll("*")].filter((one) => !hidden(one));
            const beyond = all.filter((one) => {
              const box = one.getBoundingClientRect();
              return box.width > 1 && (box.right > edge || box.left < -0.5);
            });
            const wider = all.filter((one) => one.scrollWidth > one.clientWidth + 1);
            const clipped = wider.filter((one) => style(one).overflowX !== "visible");
            const page = document.documentElement.scrollWidth > edge ? ["the page"] : [];
            return [...page, ...[...beyond, ...clipped].map(named)].slice(0, 10);
            """
        )
        return found


@contextmanager
def browser() -> Iterator[Browser]:
    """A new Chromium with a new profile; the test is skipped where the machine has none."""
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
    from selenium.webdriver.chrome.service import Service

    chromium, chromedriver = shutil.which("chromium"), shutil.which("chromedriver")
    if not chromium or not chromedriver:
        pytest.skip("no chromium and chromedriver on this machine: apt-get install chromium chromium-driver")
    with tempfile.TemporaryDirectory(prefix="sf-browser-", ignore_cleanup_errors=True) as profile:
        options = webdriver.ChromeOptions()
        options.binary_location = chromium
        for flag in (*FLAGS, f"--user-data-dir={profile}"):
            options.add_argument(flag)
        options.set_capability("goog:loggingPrefs", {"performance": "ALL", "browser": "ALL"})
        # chromedriver ends its browser when it ends itself; this makes chromedriver end with us
        service = Service(chromedriver, popen_kw={"preexec_fn": _die_with_parent})
        driver = webdriver.Chrome(options=options, service=service)
        try:
            yield Browser(driver)
        finally:
            driver.quit()


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
