"""Regular expressions on file names, in bounded time: an expression that backtracks for ever is an error, not a hang.

The syntax is that of `re`; the matching is done by `regex`, whose loop can be timed out.
"""

from __future__ import annotations

import re
import time
from functools import cache
from typing import Any

import regex

from infra.errors import UsageError

MATCH_S = 0.5  # one file name; an honest expression takes microseconds
TOTAL_S = 5.0  # all file names together, and SPARE_S more for each
SPARE_S = 50e-6
MAX_LENGTH = 2000


class Expression:
    """A compiled expression that keeps account of the time it takes."""

    def __init__(self, text: str) -> None:
        """Raise re.error where `text` is no expression of `re`."""
        self.text = text
        self.fields = tuple(re.compile(text).groupindex)
        self._compiled: Any = regex.compile(text)
        self._count = 0
        self._seconds = 0.0

    def fullmatch(self, name: str) -> Any:
        """The match of the whole of `name`, or None; UsageError where that takes too long."""
        return self._timed(self._compiled.fullmatch, name)

    def search(self, name: str) -> Any:
        """The first match inside `name`, or None; UsageError where that takes too long."""
        return self._timed(self._compiled.search, name)

    def _timed(self, match: Any, name: str) -> Any:
        begun = time.perf_counter()
        try:
            found = match(name, timeout=MATCH_S)
        except TimeoutError as error:
            raise self._too_slow(name) from error
        self._count += 1
        self._seconds += time.perf_counter() - begun
        if self._seconds > TOTAL_S + SPARE_S * self._count:
            raise self._too_slow(name)
        return found

    def _too_slow(self, name: str) -> UsageError:
        return UsageError(
            f"the expression {self.text!r} takes too long on the file name {name[:80]!r}: expected under {MATCH_S} s. "
            "A repeat inside a repeat, as in (a+)+, does that: write each repeat once"
        )


@cache
def compiled(text: str) -> Expression:
    """The expression for `text`, compiled once."""
    return Expression(text)
