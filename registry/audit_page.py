"""The answer of an audit as one self-contained HTML page: no script, no network; prints on A4."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from infra.secrets import without_secrets
from infra.storage import write_text
from registry.pages import environment

TEMPLATE = "audit.html"
GOOD, BAD, NOTE, PLAIN = "good", "bad", "note", ""


@dataclass(frozen=True)
class Badge:
    """A word or two beside the title; `kind` colours it."""

    text: str
    kind: str = PLAIN


@dataclass(frozen=True)
class IdList:
    """A long list of identifiers under a title; those in `bad` stand out."""

    title: str
    items_: Sequence[str]
    bad: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Section:
    """A table, a block of text, or lists, under a heading. `bad` are the numbers of rows that stand out."""

    title: str
    note: str = ""
    columns: Sequence[str] = ()
    rows: Sequence[Sequence[Any]] = ()
    right: Sequence[str] = ()
    bad: Sequence[int] = ()
    text: str = ""
    lists: Sequence[IdList] = ()


@dataclass(frozen=True)
class Page:
    """What `write_page` draws, top to bottom."""

    eyebrow: str
    title: str
    badges: Sequence[Badge] = ()
    lead: str = ""
    facts: Sequence[tuple[str, Any]] = ()
    sections: Sequence[Section] = field(default_factory=tuple)
    footer: str = ""


def write_page(path: Path, page: Page) -> None:
    """Write `page` to `path`, atomically."""
    write_text(path, without_secrets(environment().get_template(TEMPLATE).render(page=page)))
