"""The command line: `segfoundry`, the same as `python -m pipelines`.

Every verb is thin: it reads options, calls one function, and shows what came back, as a table for
people or with `--json` as one document on standard output.
"""

from __future__ import annotations

import errno
import sys
from collections.abc import Sequence
from typing import NoReturn

from infra.errors import SegfoundryError
from infra.secrets import keep_out_of_logs
from pipelines.cli import output

# What no code of ours can mend: told as one message and no traceback.
_OF_THE_MACHINE = {
    errno.ENOSPC: "Free some space and run again",
    errno.EDQUOT: "Free some of your quota and run again",
    errno.EFBIG: "Files may not grow this large here (ulimit -f); raise the limit and run again",
    errno.EROFS: "Take another --workspace, or make this disk writable, and run again",
    errno.EACCES: "Correct the permissions and run again",
    errno.EPERM: "Correct the permissions and run again",
}


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

    keep_out_of_logs()
    output.begin(as_json="--json" in arguments)
    try:
        left_with = get_command(app).main(arguments, prog_name="segfoundry", standalone_mode=False)
    except SegfoundryError as error:
        return output.fail(str(error), error.exit_code)
    except TyperException as error:
        return output.fail(_usage(error), 2)
    except OSError as error:
        if error.errno not in _OF_THE_MACHINE:
            raise
        where = error.filename2 or error.filename or "a file of the workspace"
        return output.fail(f"{where}: {error.strerror}. {_OF_THE_MACHINE[error.errno]}; what is done is kept", 2)
    except (Abort, KeyboardInterrupt):
        return output.fail("interrupted; start it again and it goes on", 130)
    return left_with if isinstance(left_with, int) else output.exit_code()


def _usage(error: Exception) -> str:
    context = getattr(error, "ctx", None)
    message = str(getattr(error, "format_message", lambda: error)())
    return f"{message}\nTry: {context.command_path} --help" if context is not None else message
