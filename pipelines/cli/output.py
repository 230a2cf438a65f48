"""What a verb says: tables for people on standard output, or one JSON document; all else on standard error."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import IO, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from infra.secrets import without_secrets

JsonOption = Annotated[
    bool, typer.Option("--json", help="One JSON document on standard output, logs on standard error.")
]
WorkspaceOption = Annotated[
    Path | None,
    typer.Option(
        "--workspace",
        "-w",
        metavar="DIR",
        help="The workspace: a git + DVC folder that segfoundry prepares. Default: SEGFOUNDRY_WORKSPACE, "
        "else workspaces/demo for demo and workspaces/default for the rest.",
    ),
]
HtmlOption = Annotated[
    Path | None,
    typer.Option(
        "--html", metavar="FILE", help="Also write the answer as one HTML page that prints and needs no script."
    ),
]
LicenceOption = Annotated[
    str | None,
    typer.Option(
        "--licence",
        metavar="USE",
        help="commercial or redistribution: leave out datasets whose card does not say yes to that use; any: no limit. "
        "Kept as train.licence in params.yaml.",
    ),
]


WIDTH_IN_A_FILE = 140  # a pipe has no width; 80 would break every table


class _State:
    as_json = False
    document: IO[str] = sys.stdout
    failed = False


def begin(*, as_json: bool) -> None:
    """Set up the streams. With JSON, what any library prints on standard output goes to standard error instead."""
    _State.as_json = as_json
    _State.failed = False
    _State.document = sys.stdout
    if as_json:
        sys.stdout.flush()
        _State.document = os.fdopen(os.dup(1), "w", encoding="utf-8")
        os.dup2(2, 1)


def as_json() -> bool:
    """Whether the verb runs with `--json`."""
    return _State.as_json


def exit_code() -> int:
    """0, or 1 where `found_failure` was called."""
    return 1 if _State.failed else 0


def found_failure() -> None:
    """The verb ran and what it found is a failure."""
    _State.failed = True


def logs() -> Console:
    """The console for progress and messages: standard error."""
    return _console(stderr=True)


def _console(**options: Any) -> Console:
    """A console that shows texts as they are: a reason or a path may hold `[/data/x]` or `:x:`, which is no markup."""
    return Console(highlight=False, markup=False, emoji=False, **options)


def show(document: Any, *renderables: Any) -> None:
    """Show the result of a verb: the document with `--json`, else the renderables; strings as they are, no markup."""
    if _State.as_json:
        text = json.dumps(document, indent=1, ensure_ascii=False, default=str)
        _State.document.write(without_secrets(text) + "\n")
        _State.document.flush()
        return
    console = _console()
    if not console.is_terminal:
        console = _console(width=WIDTH_IN_A_FILE)
    for renderable in renderables:
        console.print(without_secrets(renderable) if isinstance(renderable, str) else renderable)


def fail(message: str, code: int) -> int:
    """Show one message without a traceback; with `--json` also as the document."""
    if _State.as_json:
        show({"error": message, "exit_code": code})
    logs().print(Text.assemble(("segfoundry:", "bold red"), f" {without_secrets(message)}"), soft_wrap=True)
    return code


def table(title: str, columns: list[str], rows: list[list[Any]], *, right: tuple[str, ...] = ()) -> Table:
    """A plain table; None is shown as a dash, fractions with three places."""
    made = Table(title=without_secrets(title) or None, title_justify="left", header_style="bold")
    for column in columns:
        made.add_column(column, justify="right" if column in right else "left", overflow="fold")
    for row in rows:
        made.add_row(*[_text(value) for value in row])
    return made


def _text(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, float):
        return f"{value:.3f}"
    return without_secrets(str(value))
