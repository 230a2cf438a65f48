"""`make bench`: measure everything and write `docs/benchmarks.md`; the figures also as JSON on standard output."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path

from infra.errors import SegfoundryError, UsageError
from infra.settings import load_settings
from infra.storage import write_text
from pipelines.bench import codecs, ingest, inputs, machine, manifests, page, remembered

PARTS = ("ingest", "codecs", "remembered", "manifest")


def main() -> None:
    """Run the chosen parts; exit code 2 with a message where they cannot run."""
    parser = argparse.ArgumentParser(prog="python -m pipelines.bench", description=__doc__)
    parser.add_argument("--peers", type=Path, default=Path(".venv-bench/bin/python"), help="interpreter of the peers")
    parser.add_argument("--only", choices=PARTS, action="append", help="measure this part alone (may be repeated)")
    parser.add_argument("--repetitions", type=int, default=3, help="counted runs of each contestant (default 3)")
    parser.add_argument("--manifest-rows", type=int, default=10_000_000, help="rows of the made-up manifests")
    parser.add_argument("--scratch", type=Path, help="folder for temporary files (default: the temporary folder)")
    parser.add_argument("--out", type=Path, help="Markdown file to write; default: none")
    options = parser.parse_args()
    try:
        figures = _measure(options)
    except SegfoundryError as error:
        sys.stderr.write(f"{error}\n")
        sys.exit(error.exit_code)
    json.dump(figures, sys.stdout, indent=1)
    sys.stdout.write("\n")
    if options.out:
        write_text(options.out, page.markdown(figures))


def _measure(options: argparse.Namespace) -> page.Figures:
    parts = options.only or PARTS
    begun = time.monotonic()
    figures: page.Figures = {"machine": machine.describe(), "repetitions": options.repetitions}
    with tempfile.TemporaryDirectory(prefix="sf-bench-", dir=options.scratch) as folder:
        scratch = Path(folder)
        if "ingest" in parts:
            mirror = _mirror()
            if not options.peers.is_file():
                msg = f"{options.peers}: expected the peers' interpreter, found none. `make bench` sets it up"
                raise UsageError(msg)
            figures["machine"]["peers"] = machine.peer_versions(options.peers)
            suites = inputs.suites(mirror, scratch / "inputs", options.peers)
            figures["ingest"] = ingest.measure(suites, options.peers, scratch, options.repetitions)
        if "codecs" in parts:
            figures["codecs"] = codecs.measure(_mirror(), scratch / "codecs", options.repetitions)
        if "remembered" in parts:
            figures["remembered"] = remembered.measure(scratch / "remembered")
        if "manifest" in parts:
            figures["manifest"] = manifests.measure(options.manifest_rows, scratch / "manifests", options.repetitions)
    figures["total_s"] = round(time.monotonic() - begun)
    return figures


def _mirror() -> Path:
    mirror = load_settings().mirror
    if not mirror:
        msg = "SEGFOUNDRY_MIRROR is not set: this is measured on the sample datasets. Or say --only manifest"
        raise UsageError(msg)
    return Path(mirror)


if __name__ == "__main__":
    main()
