"""Inspect a SAM3 checkpoint of any layout, or write it in another: `python -m training.sam3.convert IN [OUT]`."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from infra.errors import SegfoundryError
from training.sam3.checkpoint import open_checkpoint, save_official, save_transformers


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the report of what was read, and of what was written; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m training.sam3.convert", description=__doc__)
    parser.add_argument("source", metavar="IN", help="file, folder, or Hub model as owner/name[@revision]")
    parser.add_argument("out", metavar="OUT", nargs="?", type=Path, help="folder (transformers) or .pt file (official)")
    parser.add_argument("--layout", choices=("official", "transformers"), default="transformers", help="of OUT")
    parser.add_argument("--base", help="official checkpoint whose tracker and point prompts go into OUT too")
    parser.add_argument("--image-size", type=int, help="side of the input in pixels that OUT is for")
    parser.add_argument("--json", action="store_true", help="the report as JSON")
    options = parser.parse_args(arguments)
    try:
        opened = open_checkpoint(options.source, image_size=options.image_size, digest=True)
        written = ""
        if options.out is not None and options.layout == "official":
            written = save_official(options.out, opened.config, opened.state, options.base)
        elif options.out is not None:
            written = save_transformers(options.out, opened.config, opened.state)
    except SegfoundryError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code
    record = {**opened.report.record(), "written_sha256": written} if written else opened.report.record()
    lines = f"{opened.report}\n" + (
        f"{options.out}: {options.layout} layout\n  sha256      {written}\n" if written else ""
    )
    sys.stdout.write(json.dumps(record, indent=1, sort_keys=True) + "\n" if options.json else lines)
    return 0


if __name__ == "__main__":
    sys.exit(main())
