"""The command line: `segfoundry`, the same as `python -m pipelines`.

Every verb is thin: it reads options, calls one function, and shows what came back, as a table for
people or with `--json` as one document on standard output.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import NoReturn

from infra.errors import SegfoundryError
from pipelines.cli import output


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command line and exit: 0 done, 1 ran and found a failure, 2 wrong use or bad input."""
    code = run(list(sys.argv[1:] if arguments is None else arguments))
    sys.stderr.flush()
    sys.exit(code)


def run(arguments: list[str]) -> int:
    """Run the command line and return the exit code."""
    from typer.exceptions import Abort, TyperException
    from typer.main import get_command

    from pipelines.cli.app import app

    output.begin(as_json="--json" in arguments)
    try:
        left_with = get_command(app).main(arguments, prog_name="segfoundry", standalone_mode=False)
    except SegfoundryError as error:
        return output.fail(str(error), error.exit_code)
    except TyperException as error:
        return output.fail(_usage(error), 2)
    except (Abort, KeyboardInterrupt):
        return output.fail("interrupted; start it again and it goes on", 130)
    return left_with if isinstance(left_with, int) else output.exit_code()


def _usage(error: Exception) -> str:
    context = getattr(error, "ctx", None)
    message = str(getattr(error, "format_message", lambda: error)())
    return f"{message}\nTry: {context.command_path} --help" if context is not None else message
