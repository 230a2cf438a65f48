"""Headers that name the files of their voxels: MetaImage and NRRD. Only files beside the header are read.

ITK opens whatever a header names. One that came from elsewhere, in an archive or over HTTP, could have any file of the
machine read as voxels. So a header is read only where it is written so plainly that its reader in ITK cannot take it
for something else than what is checked here, and by that reader alone.
"""

from __future__ import annotations

import mmap
import re
from collections.abc import Iterator
from pathlib import Path

from infra.errors import CaseError
from preprocessing.readers.sniff import format_of

_MOST_HEADER_BYTES = 1 << 20
_META_SUFFIXES = (".mha", ".mhd")
_META_KEY = b"ElementDataFile"  # MetaIO tells upper from lower case, and so do we
_META_FIELD = re.compile(rb"^[ \t]*ElementDataFile[ \t]*=[ \t]*([^\s=:][^\r\n]*)", re.MULTILINE)
_MOST_NAME_BYTES = 255
_META_INSIDE = {"LOCAL", "Local", "local"}
_FORMAT = re.compile(r"%0?\d{0,2}[diu]")  # a slice's number; nothing else is for a C library's printf


def image_io(path: Path) -> str:
    """The name of the ITK reader for a volume, whose header names no voxels outside of its own folder.

    Raises CaseError `unreadable` for what is neither NIfTI, NRRD nor MetaImage, for a header of the last two that does
    not end within 1 MiB or is not written plainly, and for one that names files elsewhere; links are followed.
    """
    with path.open("rb") as handle:
        head = handle.read(_MOST_HEADER_BYTES)
    if head.startswith(b"NRRD"):
        _check_places(path.parent, _of_nrrd(head))
        return "NrrdImageIO"
    if path.name.lower().endswith(_META_SUFFIXES):
        _check_places(path.parent, _of_meta(path, head))
        return "MetaImageIO"
    if format_of(head) == "nifti":
        return "NiftiImageIO"
    raise CaseError(
        "unreadable",
        expected="a volume in NIfTI, NRRD or MetaImage",
        found=f"a file that begins with {head[:8]!r}",
        fix="Fetch the file again, or leave the case out",
    )


def _of_meta(path: Path, head: bytes) -> Iterator[str]:
    """The files that a MetaImage header names, as MetaIO (ITK's library) reads it.

    Its key of the voxels' file ends the header. Where it stood twice, MetaIO could be led past the first; once, what
    stands around it does not matter.
    """
    if _count(path, _META_KEY) != 1:
        raise _unplain(f"{_META_KEY.decode()} once, after all other fields")
    found = _META_FIELD.search(head)
    if not found:
        raise _unplain(f'a line "{_META_KEY.decode()} = value" within {_MOST_HEADER_BYTES:,} bytes')
    value = found[1].decode("utf-8", "replace").strip()
    if value.startswith("LIST"):
        yield from _listed(head, iter(head[found.end() :].splitlines()))
    elif value not in _META_INSIDE:
        yield value


def _of_nrrd(head: bytes) -> Iterator[str]:
    """The files that an NRRD header names; it ends at the first empty line, or with the file where voxels are apart.

    A lone carriage return is taken for the end of a line and not for that of the header, whichever the library does.
    """
    end = re.search(rb"\n\r?\n", head)
    lines = re.finditer(rb"[^\r\n]+", head)
    apart = False
    for line in lines:
        if end and line.start() > end.start():
            return
        key, _, value = line[0].partition(b":")
        if key.startswith(b"#") or re.sub(rb"\s", b"", key).lower() != b"datafile":
            continue
        apart = True
        name = value.decode("utf-8", "replace").strip()
        if name.startswith("LIST"):
            yield from _listed(head, (rest[0] for rest in lines))
            return
        yield name
    if not end and (not apart or len(head) == _MOST_HEADER_BYTES):
        raise _unplain(f"an empty line at its end, within {_MOST_HEADER_BYTES:,} bytes")


def _listed(head: bytes, lines: Iterator[bytes]) -> Iterator[str]:
    """The names of a list, one a line to the end of the file: empty lines end it for one library, not for the other."""
    if len(head) == _MOST_HEADER_BYTES:
        raise _unplain(f"a list of files within {_MOST_HEADER_BYTES:,} bytes")
    for line in lines:
        if name := line.strip().decode("utf-8", "replace"):
            yield name


def _count(path: Path, word: bytes) -> int:
    """How often a word stands in a file, counted up to 2."""
    if not path.stat().st_size:
        return 0
    with path.open("rb") as handle, mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_READ) as content:
        first = content.find(word)
        return 0 if first < 0 else 1 + (content.find(word, first + 1) >= 0)


def _check_places(folder: Path, names: Iterator[str]) -> None:
    folder = folder.resolve()
    for name in names:
        # what a C library may cut short, or read in another way than Python
        if not name.isprintable() or len(name.encode()) > _MOST_NAME_BYTES:
            raise _unplain(f"names of files in at most {_MOST_NAME_BYTES} printable bytes")
        for place in _places(folder, name):
            outside = Path(place).is_absolute() or ".." in Path(place).parts
            if outside or not (folder / place).resolve().is_relative_to(folder):
                raise CaseError(
                    "unreadable",
                    expected="voxels in the file itself, or in a file beside it",
                    found=f"a header that names {Path(place).name!r} in another folder",
                    fix="Put header and voxels into one folder, or save the volume as one file",
                )


def _places(folder: Path, name: str) -> Iterator[str]:
    """What a name stands for: itself, or the slices of "slice%03d.raw 1 40 1" (first, last, step; nrrd: and axis)."""
    if "%" not in name:
        yield name
        return
    pattern, *numbers = name.split()
    plain = pattern.count("%") == len(_FORMAT.findall(pattern)) == 1 and "/" not in pattern
    if not plain or not all(re.fullmatch(r"-?\d{1,9}", number) for number in numbers):
        raise _unplain('slices beside it as "name%03d.raw first last step"')
    yield _FORMAT.sub("0", pattern)
    before, after = _FORMAT.split(pattern)
    for one in folder.iterdir():  # what is there may be a link
        if one.name.startswith(before) and one.name.endswith(after):
            yield one.name


def _unplain(expected: str) -> CaseError:
    return CaseError(
        "unreadable",
        expected=f"a header with {expected}",
        found="another",
        fix="Save the volume again, as one file",
    )
