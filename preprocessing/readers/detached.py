"""Headers that name the files of their voxels: MetaImage and NRRD. Only files beside the header are read.

ITK opens whatever a header names. One that came from elsewhere, in an archive or over HTTP, could have any file of the
machine read as voxels.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from infra.errors import CaseError

_MOST_HEADER_BYTES = 1 << 20
_META = re.compile(rb"^\s*ElementDataFile\s*=\s*(.*?)\s*$", re.IGNORECASE)
_NRRD = re.compile(rb"^\s*data ?file\s*:\s*(.*?)\s*$", re.IGNORECASE)
_FORMAT = re.compile(r"%\d*[dui]")
_INSIDE = {"", "LOCAL", "local", "Local"}


def check_detached(path: Path) -> None:
    """CaseError `unreadable` where the header at `path` names voxels outside of its own folder."""
    folder = path.parent.resolve()
    for name in _named(path):
        # a pattern of slices stands for names of the same form
        place = Path(_FORMAT.sub("0", name))
        if place.is_absolute() or not (folder / place).resolve().is_relative_to(folder):
            raise CaseError(
                "unreadable",
                expected="voxels in the file itself, or in a file beside it",
                found=f"a header that names {Path(name).name!r} in another folder",
                file=path.name,
                fix="Put header and voxels into one folder, or save the volume as one file",
            )


def _named(path: Path) -> Iterator[str]:
    with path.open("rb") as handle:
        head = handle.read(_MOST_HEADER_BYTES)
    lines = iter(head.split(b"\n"))
    is_nrrd = head.startswith(b"NRRD")
    for line in lines:
        found = (_NRRD if is_nrrd else _META).match(line.rstrip(b"\r"))
        if is_nrrd and not line.strip():
            return  # an empty line ends an NRRD header
        if not found:
            continue
        value = found[1].decode("utf-8", "replace")
        if value.upper().split(" ")[0] == "LIST":
            yield from _listed(lines)
            return
        if value not in _INSIDE:
            # "slice%03d.raw 1 40 1": name, first, last, step
            yield value.split(" ")[0] if _FORMAT.search(value) else value
        if not is_nrrd:
            return  # ElementDataFile is the last line of a MetaImage header


def _listed(lines: Iterator[bytes]) -> Iterator[str]:
    for line in lines:
        name = line.strip().decode("utf-8", "replace")
        if not name:
            return
        yield name
