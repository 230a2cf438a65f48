"""Headers that claim too much are refused before anything is allocated: little memory, little time."""

from __future__ import annotations

import gzip
import json
import os
import struct
import subprocess
import sys
import zipfile
import zlib
from pathlib import Path

import h5py
import numpy as np
from PIL import Image

_LIMIT_BYTES = 256 << 20
_LIMIT_S = 1.0
# Runs in a process of its own: the peak of a process never falls.
_CHILD = """
import json, re, sys, time
from pathlib import Path
from infra.errors import CaseError
from preprocessing.readers import arrays, raster, tiff, tiles
readers = {"picture": raster.read_image, "label": raster.read_label, "array": arrays.read_array,
           "stack": tiff.read_stack, "slide": lambda path: tiles.open_slide(path).__enter__()}
import h5py, scipy.io, scipy.sparse
raster.read_image(Path(sys.argv[1]) / "sound.png")
def most_held():  # not getrusage: its maximum begins with what the process that started this one held
    return int(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1]) * 1024
said = {}
for path in sorted(Path(sys.argv[1]).glob("bomb_*")):
    for name, read in readers.items():
        before, start = most_held(), time.process_time()
        try:
            read(path)
            reason = "read"
        except CaseError as error:
            reason = error.reason
        said[f"{path.name} as {name}"] = [reason, most_held() - before, time.process_time() - start]
print(json.dumps(said))
"""


def chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def png(width: int, height: int, bits: int = 8, colour: int = 2) -> bytes:
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")


def tiff_of(width: int, height: int, stored: int, compression: int = 1, count: int = 1) -> bytes:
    """A TIFF whose one strip says that it has `stored` bytes, and has eight."""
    entries = [
        (256, 4, 1, width), (257, 4, 1, height), (258, 3, 1, 8), (259, 3, 1, compression), (262, 3, 1, 1),
        (273, 4, count, 8), (277, 3, 1, 1), (278, 4, 1, height), (279, 4, count, stored),
    ]  # fmt: skip
    body = struct.pack("<H", len(entries))
    for tag, kind, number, value in entries:
        body += struct.pack("<HHI", tag, kind, number) + struct.pack("<I", value)
    return b"II*\0" + struct.pack("<I", 16) + bytes(8) + body + struct.pack("<I", 0)


def npy(shape: tuple[int, ...], body: bytes = b"") -> bytes:
    said = f"{{'descr': '<f8', 'fortran_order': False, 'shape': {shape}, }}"
    text = said.encode().ljust(117) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + body


def write_bombs(folder: Path) -> None:
    Image.fromarray(np.zeros((8, 8), dtype=np.uint8)).save(folder / "sound.png")
    whole = (65_535, 65_535)
    files = {
        "png": png(60_000, 60_000),
        "png_at_the_limit": png(19_000, 19_000),
        "png_deep": png(19_000, 19_000, bits=16),
        "bmp": b"BM" + struct.pack("<IHHIIiiHH", 1000, 0, 0, 54, 40, 60_000, 60_000, 1, 24) + bytes(900),
        "gif": b"GIF89a" + struct.pack("<HHBBB", *whole, 0, 0, 0) + b"," + struct.pack("<HHHHB", 0, 0, *whole, 0)
        + b"\x02\x02\x44\x01\x00;",
        "ppm": b"P6\n60000 60000\n255\n" + bytes(100),
        "tiff": tiff_of(60_000, 60_000, 8),
        "tiff_lying": tiff_of(19_000, 19_000, 361_000_000),
        "tiff_packed": tiff_of(19_000, 19_000, 8, compression=8),
        "tiff_offsets": tiff_of(19_000, 19_000, 8, count=1 << 28),
        "png.gz": gzip.compress(png(60_000, 60_000)),
        "gz": gzip.compress(b"\x89PNG\r\n\x1a\n" + bytes(8 << 20)) + gzip.compress(bytes(8 << 20)) * 600,
        "npy": npy((1 << 20, 1 << 20)),
        "npy_lying": npy((1 << 14, 1 << 14), bytes(64)),
    }  # fmt: skip
    for name, content in files.items():
        (folder / f"bomb_{name}").write_bytes(content)
    with zipfile.ZipFile(folder / "bomb_npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("imgs.npy", npy((1 << 30,)))
    with zipfile.ZipFile(folder / "bomb_npz_packed", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("imgs.npy", npy((1 << 22,), bytes(8 << 22)))
    np.savez(folder / "bomb_sparse.npz", data=[1.0], indices=[0], indptr=[0, 1], shape=[1 << 40, 9], format=b"csr")
    for name, shape in (("hdf5", (1 << 15, 1 << 15, 1 << 15)), ("hdf5_at_the_limit", (900, 1000, 1000))):
        with h5py.File(folder / f"bomb_{name}", "w") as file:
            file.create_dataset("raw", shape=shape, dtype="u1", chunks=(64, 64, 64), compression="gzip")


def test_a_bomb_is_refused_from_its_header(tmp_path: Path) -> None:
    write_bombs(tmp_path)
    run = subprocess.run(
        [sys.executable, "-c", _CHILD, str(tmp_path)],
        capture_output=True, text=True, check=True, env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )  # fmt: skip
    said = json.loads(run.stdout)
    assert len(said) == 5 * len(list(tmp_path.glob("bomb_*")))
    for what, (reason, grown_bytes, seconds) in said.items():
        harmless = what.startswith("bomb_npz_packed")  # 32 MiB of zeros: large for its file, and small
        assert reason in ("too_large", "unreadable", "channels", "pages") or harmless, what
        assert grown_bytes < _LIMIT_BYTES, (what, grown_bytes)
        assert seconds < _LIMIT_S, (what, seconds)
    for what in ("png as picture", "png_at_the_limit as label", "tiff as picture", "gz as picture", "npy as array"):
        assert said[f"bomb_{what}"][0] in ("too_large", "unreadable"), what
