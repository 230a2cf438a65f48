"""The fourteen hostile archives: each is refused, nothing is left, and not a byte lands outside of the target."""

from __future__ import annotations

import io
import os
import stat
import tarfile
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from infra.errors import DataError
from preprocessing.unpack import Kind, unpack

Member = tuple[tarfile.TarInfo, bytes]


def entry(name: str, kind: bytes = tarfile.REGTYPE, goal: str = "", data: bytes = b"x") -> Member:
    made = tarfile.TarInfo(name)
    made.type, made.linkname = kind, goal
    made.size = len(data) if kind == tarfile.REGTYPE else 0
    return made, data


def tar(path: Path, *members: Member, mode: str = "w") -> Path:
    with tarfile.open(path, mode) as opened:  # type: ignore[call-overload]
        for made, data in members:
            opened.addfile(made, io.BytesIO(data))
    return path


def zipped(path: Path, *members: tuple[str, bytes], attributes: int = 0) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as opened:
        for name, data in members:
            made = zipfile.ZipInfo(name)
            made.compress_type = zipfile.ZIP_DEFLATED
            made.external_attr = attributes << 16
            opened.writestr(made, data)
    return path


def zip_climbs(folder: Path) -> Path:
    return zipped(folder / "a.zip", ("good.txt", b"x"), ("../../outside/evil.txt", b"x"))


def tar_climbs(folder: Path) -> Path:
    return tar(folder / "a.tar", entry("good.txt"), entry("a/../../outside/evil.txt"))


def zip_absolute(folder: Path) -> Path:
    return zipped(folder / "a.zip", (str(folder / "outside" / "evil.txt"), b"x"))


def tar_absolute(folder: Path) -> Path:
    return tar(folder / "a.tar", entry(str(folder / "outside" / "evil.txt")))


def zip_backslash(folder: Path) -> Path:
    path = zipped(folder / "a.zip", ("..#..#outside#evil.txt", b"x"))
    path.write_bytes(path.read_bytes().replace(b"..#..#outside#evil.txt", rb"..\..\outside\evil.txt"))
    return path


def tar_symlink_out(folder: Path) -> Path:
    """A link to a folder outside, then a file written through it."""
    return tar(folder / "a.tar", entry("door", tarfile.SYMTYPE, str(folder / "outside")), entry("door/evil.txt"))


def tar_symlink_chain(folder: Path) -> Path:
    """Each link alone stays inside; together they climb out."""
    return tar(
        folder / "a.tar",
        entry("d", tarfile.DIRTYPE),
        entry("d/up", tarfile.SYMTYPE, ".."),
        entry("d/upup", tarfile.SYMTYPE, "up/.."),
        entry("d/upup/outside/evil.txt"),
    )


def zip_symlink(folder: Path) -> Path:
    with zipfile.ZipFile(folder / "a.zip", "w") as opened:
        link = zipfile.ZipInfo("door")
        link.external_attr = (stat.S_IFLNK | 0o777) << 16
        opened.writestr(link, "../../outside/secret.txt")
    return folder / "a.zip"


def tar_hard_link(folder: Path) -> Path:
    return tar(folder / "a.tar", entry("secret", tarfile.LNKTYPE, "../../outside/secret.txt"))


def tar_device(folder: Path) -> Path:
    return tar(folder / "a.tar", entry("good.txt"), entry("null", tarfile.CHRTYPE))


def tar_pipe(folder: Path) -> Path:
    return tar(folder / "a.tar", entry("pipe", tarfile.FIFOTYPE))


def zip_bomb(folder: Path) -> Path:
    """300 MB of zeros in 300 kB: a ratio of a thousand."""
    with zipfile.ZipFile(folder / "a.zip", "w", zipfile.ZIP_DEFLATED, compresslevel=1) as opened:
        block = bytes(1 << 20)
        with opened.open("zeros.bin", "w", force_zip64=True) as sink:
            for _ in range(300):
                sink.write(block)
    return folder / "a.zip"


def many_entries(folder: Path) -> Path:
    """100,001 empty files in one archive: no data set, but as many inodes."""
    with (folder / "a.tar").open("wb") as sink:
        made = tarfile.TarInfo()
        for number in range(100_001):
            made.name = f"{number:06d}"
            sink.write(made.tobuf())
        sink.write(bytes(1024))
    return folder / "a.tar"


def tar_case_collision(folder: Path) -> Path:
    return tar(folder / "a.tar", entry("Mask/a.png"), entry("mask/A.PNG", data=b"another"))


FOURTEEN: list[Callable[[Path], Path]] = [
    zip_climbs, tar_climbs, zip_absolute, tar_absolute, zip_backslash, tar_symlink_out, tar_symlink_chain, zip_symlink,
    tar_hard_link, tar_device, tar_pipe, zip_bomb, many_entries, tar_case_collision,
]  # fmt: skip


@pytest.mark.parametrize("make", FOURTEEN, ids=lambda make: make.__name__)
def test_a_hostile_archive_is_refused_and_leaves_nothing(make: Callable[[Path], Path], tmp_path: Path) -> None:
    outside, place = tmp_path / "outside", tmp_path / "deep" / "place"
    outside.mkdir()
    (outside / "secret.txt").write_bytes(b"secret")
    archive = make(tmp_path)
    kind: Kind = "zip" if archive.suffix == ".zip" else "tar"
    begun = time.monotonic()
    with pytest.raises(DataError, match=r"a\.(zip|tar): expected .*, found .*The archive was not unpacked"):
        unpack(archive, place / "out", kind)
    assert time.monotonic() - begun < 60
    assert {path.name for path in tmp_path.iterdir()} == {"outside", "deep", archive.name}
    assert [path.name for path in outside.iterdir()] == ["secret.txt"]
    assert (outside / "secret.txt").read_bytes() == b"secret"
    assert os.stat(outside / "secret.txt").st_nlink == 1
    assert list(place.iterdir()) == []  # neither the target nor a half of it


def test_there_are_fourteen() -> None:
    assert len({make.__name__ for make in FOURTEEN}) == 14


def test_a_good_archive_with_inner_links_is_unpacked(tmp_path: Path) -> None:
    """The refusals do not come from refusing everything."""
    path = tar(tmp_path / "a.tar", entry("d/a.txt"), entry("d/b.txt", tarfile.SYMTYPE, "a.txt"), entry("ä/Ö.txt"))
    out = unpack(path, tmp_path / "out", "tar")
    assert sorted(each.relative_to(out).as_posix() for each in out.rglob("*.txt")) == ["d/a.txt", "d/b.txt", "ä/Ö.txt"]
    assert (out / "d" / "b.txt").read_bytes() == b"x"
