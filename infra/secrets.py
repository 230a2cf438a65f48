"""Texts without the secrets of this machine: nothing that is shown, logged or kept may hold a password or key.

Secrets come from two places: credentials inside addresses (`s3://key:secret@…`, `?token=…`), and environment
variables whose name says what they are (`SEGFOUNDRY_PSEUDONYM_KEY`, `AWS_SECRET_ACCESS_KEY`, `*_PASSWORD`, …),
which a library may quote in its error.
"""

from __future__ import annotations

import logging
import os
import re
import sys
import traceback
from types import TracebackType
from typing import Any
from urllib.parse import unquote, urlsplit

HIDDEN = "[secret]"
_SECRET_WORD = r"(?:key|secret|token|password|passwd|credentials?|signature|sig|auth)"  # PWD is a folder
_SECRET_NAME = re.compile(rf"(?:^|_){_SECRET_WORD}(?:_|$)", re.IGNORECASE)
_NO_SECRET_NAME = re.compile(r"_(?:FILE|PATH|DIR|ID)$", re.IGNORECASE)  # where a secret lies, or whose it is
_IN_ADDRESS = re.compile(r"(?P<scheme>\b[A-Za-z][A-Za-z0-9+.-]*://)[^/?#\s'\"<>@]+@")
_IN_QUERY = re.compile(rf"(?P<name>[?&;][\w.-]*{_SECRET_WORD}[\w.-]*=)[^&\s'\"<>#]+", re.IGNORECASE)
_LEAST = 6  # shorter values are in every text


def secret_values() -> list[str]:
    """Values of environment variables that are secrets, and passwords in those that are addresses, long first."""
    found: set[str] = set()
    for name, value in os.environ.items():
        if _SECRET_NAME.search(name) and not _NO_SECRET_NAME.search(name):
            found.add(value)
        if "://" in value and "@" in value:
            try:
                password = urlsplit(value).password or ""
            except ValueError:
                continue
            found.update((password, unquote(password)))
    return sorted((value for value in found if len(value) >= _LEAST), key=lambda value: (-len(value), value))


def without_secrets(text: str) -> str:
    """`text` with `[secret]` where an address holds credentials or a secret of the environment is quoted."""
    text = _IN_ADDRESS.sub(rf"\g<scheme>{HIDDEN}@", text)
    text = _IN_QUERY.sub(rf"\g<name>{HIDDEN}", text)
    for value in secret_values():
        text = text.replace(value, HIDDEN)
    return text


def keep_out_of_logs() -> None:
    """From now on no log record and no traceback of this process holds a secret, whoever logs it."""
    before = logging.getLogRecordFactory()
    if getattr(before, "keeps_secrets", False):
        return

    def record(*arguments: Any, **named: Any) -> logging.LogRecord:
        made = before(*arguments, **named)
        try:
            said = made.getMessage()
        except Exception:  # noqa: BLE001 - a wrong format string: logging itself tells of it
            return made
        clean = without_secrets(said)
        if clean != said:
            made.msg, made.args = clean, ()
        if made.exc_info and made.exc_info[1] is not None:
            made.exc_text = without_secrets("".join(traceback.format_exception(made.exc_info[1]))).rstrip("\n")
        return made

    record.keeps_secrets = True  # type: ignore[attr-defined]
    logging.setLogRecordFactory(record)
    sys.excepthook = _excepthook


def _excepthook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    sys.stderr.write(without_secrets("".join(traceback.format_exception(kind, error, trace))))
