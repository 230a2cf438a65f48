"""`make docs`: docs/cli.md from the command line's own help, so that it cannot say something else."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from typer.main import get_command

from infra.storage import write_text
from pipelines.cli.app import app

HEAD = "# The command line\n\nWritten by `make docs` from `segfoundry --help`; a test holds the two together.\n"


def render() -> str:
    """The whole reference as Markdown."""
    root = get_command(app)
    return "\n".join([HEAD, *_sections("segfoundry", root)]).rstrip() + "\n"


def _sections(path: str, command: Any) -> list[str]:
    lines = [f"## `{path}`", "", _paragraphs(command.help), ""]
    options = [_row(item) for item in command.params if item.name != "help" and not getattr(item, "hidden", False)]
    if options:
        lines += ["| argument or option | what it does |", "| --- | --- |", *options, ""]
    for name, sub in getattr(command, "commands", {}).items():
        if not sub.hidden:
            lines += _sections(f"{path} {name}", sub)
    return lines


def _paragraphs(text: str | None) -> str:
    return "\n\n".join(" ".join(part.split()) for part in (text or "").split("\n\n"))


def _row(item: Any) -> str:
    names = (
        ", ".join(f"`{name}`" for name in item.opts)
        if item.param_type_name == "option"
        else f"`{item.metavar or item.name}`"
    )
    return f"| {names} | {' '.join((getattr(item, 'help', None) or '').split())} |"


if __name__ == "__main__":
    write_text(Path(sys.argv[1]), render())
