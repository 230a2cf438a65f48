"""Pictures written by the public libraries come back as they were written, whatever they are called."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pytest
import tifffile
from PIL import Image

from infra.errors import CaseError
from preprocessing.cards import Intensity
from preprocessing.harmonize.intensity import to_8bit
from preprocessing.readers import raster, stacks, tiff
from preprocessing.readers.sniff import format_of, head_of

RNG = np.random.default_rng(7)
GREY = RNG.integers(0, 256, (23, 31), dtype=np.uint8)
DEEP = RNG.integers(0, 65536, (23, 31), dtype=np.uint16)
COLOUR = RNG.integers(0, 256, (23, 31, 3), dtype=np.uint8)
DEEP_COLOUR = RNG.integers(0, 65536, (23, 31, 3), dtype=np.uint16)
BITS = RNG.random((23, 31)) > 0.5


def same(left: np.ndarray, right: np.ndarray) -> bool:
    return left.dtype == right.dtype and np.array_equal(left, right)


@pytest.mark.parametrize("name", ["a.png", "a.bmp", "a.gif", "a.pgm", "a.webp", "a.tif", "a.jp2", "a.dcm", "a"])
@pytest.mark.parametrize("kind", ["png", "bmp", "gif", "ppm", "tiff", "webp", "jpeg2000"])
def test_the_content_decides_and_not_the_name(tmp_path: Path, name: str, kind: str) -> None:
    lossless = {"webp": {"lossless": True, "exact": True}}.get(kind, {})
    Image.fromarray(GREY).save(tmp_path / name, format=kind, **lossless)
    assert same(raster.grey_if_equal(raster.read_image(tmp_path / name).pixels), GREY)
    content = (tmp_path / name).read_bytes()
    (tmp_path / "packed").write_bytes(gzip.compress(content))
    assert format_of(head_of(tmp_path / "packed")) == format_of(content) != "unknown"
    assert np.array_equal(raster.read_label(tmp_path / "packed"), raster.read_label(tmp_path / name))


@pytest.mark.parametrize("colour", [False, True])
@pytest.mark.parametrize("alpha", [False, True])
@pytest.mark.parametrize("deep", [False, True])
@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_depth_colour_and_alpha(tmp_path: Path, colour: bool, alpha: bool, deep: bool, suffix: str) -> None:
    wanted = (DEEP_COLOUR if colour else DEEP) if deep else (COLOUR if colour else GREY)
    stored = wanted
    if alpha:
        extra = RNG.integers(0, 2, (23, 31, 1)).astype(wanted.dtype) * np.iinfo(wanted.dtype).max
        stored = np.concatenate([wanted if colour else wanted[..., None], extra], axis=2)
    path = tmp_path / f"a{suffix}"
    if suffix == ".png":
        path.write_bytes(imagecodecs.png_encode(stored))
    else:
        more = {"extrasamples": ["unassalpha"], "planarconfig": "contig"} if alpha else {}
        tifffile.imwrite(path, stored, photometric="rgb" if colour else "minisblack", **more)
    assert same(raster.read_image(path).pixels, wanted)
    assert same(raster.read_label(path), wanted)


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_grey_png_of_few_bits(tmp_path: Path, bits: int) -> None:
    import struct
    import zlib

    values = np.arange(16, dtype=np.uint8).reshape(2, 8) % (1 << bits)
    rows = b""
    for line in values:
        number = 0
        for value in line:
            number = number << bits | int(value)
        rows += b"\0" + number.to_bytes(bits, "big")  # 8 pixels of `bits` bits are `bits` bytes

    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", 8, 2, bits, 0, 0, 0, 0))
    body = chunk(b"IDAT", zlib.compress(rows))
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + head + body + chunk(b"IEND", b""))
    found = raster.read_label(tmp_path / "a.png")
    assert np.array_equal(found, values.astype(bool) if bits == 1 else values * (255 // ((1 << bits) - 1)))


def test_a_palette_is_indices_colours_or_a_mask(tmp_path: Path) -> None:
    index = RNG.integers(0, 3, (20, 21), dtype=np.uint8)
    picture = Image.fromarray(index).convert("P")
    picture.putdata(index.ravel().tolist())
    picture.putpalette([0, 0, 0, 255, 0, 0, 0, 255, 0])
    for name in ("a.png", "a.gif", "a.bmp", "a.tif"):
        picture.save(tmp_path / name)
        colours = np.array([[0, 0, 0], [255, 0, 0], [0, 255, 0]], dtype=np.uint8)[index]
        assert np.array_equal(raster.read_label(tmp_path / name), index)
        assert np.array_equal(raster.read_label(tmp_path / name, "colour"), colours)
        assert np.array_equal(raster.read_image(tmp_path / name).pixels, colours)
    two = Image.fromarray((index == 1).astype(np.uint8)).convert("P")
    two.putdata((index == 1).astype(int).ravel().tolist())
    for palette in ([0, 0, 0, 255, 255, 255], [0, 0, 0, 128, 0, 0]):
        two.putpalette(palette)
        two.save(tmp_path / "two.png")
        assert np.array_equal(raster.read_label(tmp_path / "two.png", "binary") > 0, index == 1)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_rotated_photograph_and_its_label_are_upright(tmp_path: Path, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    picture = np.zeros((16, 48, 3), dtype=np.uint8)
    picture[:8, :24] = 255  # upper left of what the sensor saw
    upper, left = {1: (1, 1), 2: (1, 0), 3: (0, 0), 4: (0, 1), 5: (1, 1), 6: (1, 0), 7: (0, 0), 8: (0, 1)}[orientation]
    Image.fromarray(picture).save(tmp_path / "a.jpg", exif=exif, quality=95)
    tifffile.imwrite(
        tmp_path / "a.tif", picture, photometric="rgb", extratags=[(274, 3, 1, orientation, True)]
    )  # fmt: skip
    for file in ("a.jpg", "a.tif"):
        shown = raster.read_image(tmp_path / file).pixels
        assert shown.shape[:2] == ((16, 48) if orientation < 5 else (48, 16))
        quarter = (slice(None, shown.shape[0] // 2) if upper else slice(shown.shape[0] // 2, None),
                   slice(None, shown.shape[1] // 2) if left else slice(shown.shape[1] // 2, None))  # fmt: skip
        assert shown[quarter].min() > 200, file
        assert (shown > 127).mean() == pytest.approx(0.25, abs=0.02)
        assert np.array_equal(raster.read_label(tmp_path / file), shown)


@pytest.mark.parametrize("compression", [None, "zlib", "lzw", "packbits", "zstd", "lzma"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int16, np.int32, np.float32])
def test_tiff_depths_and_codecs(tmp_path: Path, compression: str | None, dtype: type) -> None:
    array = (RNG.random((40, 50)) * 200).astype(dtype)
    tifffile.imwrite(tmp_path / "a.tif", array, compression=compression, tile=(32, 32))
    found = raster.read_image(tmp_path / "a.tif").pixels
    assert found.dtype == dtype
    assert np.array_equal(found, array)


def test_tiff_planes_bits_and_white_zero(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "p.tif", np.moveaxis(COLOUR, 2, 0), planarconfig="separate", photometric="rgb")
    assert same(raster.read_image(tmp_path / "p.tif").pixels, COLOUR)
    tifffile.imwrite(tmp_path / "b.tif", BITS, photometric="minisblack")
    assert same(raster.read_label(tmp_path / "b.tif"), BITS)
    tifffile.imwrite(tmp_path / "w.tif", GREY, photometric="miniswhite")
    assert same(raster.read_image(tmp_path / "w.tif").pixels, 255 - GREY)
    assert same(raster.read_label(tmp_path / "w.tif"), GREY)
    for code in ("1", "L"):  # Pillow's own writer, fax codec for bits
        Image.fromarray(BITS).convert(code).save(tmp_path / "f.tif", compression="group4" if code == "1" else None)
        assert np.array_equal(raster.read_label(tmp_path / "f.tif") > 0, BITS)
    separated = np.zeros((8, 8, 4), dtype=np.uint8)
    tifffile.imwrite(tmp_path / "c.tif", separated, photometric="separated")
    with pytest.raises(CaseError, match="channels"):  # ink, of which dropping the last would be another colour
        raster.read_image(tmp_path / "c.tif")


def test_pages_are_a_stack_where_the_card_says_so_and_thumbnails_are_not_pages(tmp_path: Path) -> None:
    stack = RNG.integers(0, 65536, (5, 20, 24), dtype=np.uint16)
    for options in ({}, {"imagej": True}, {"ome": True, "metadata": {"axes": "ZYX"}}, {"bigtiff": True}):
        tifffile.imwrite(tmp_path / "s.tif", stack, photometric="minisblack", **options)
        with pytest.raises(CaseError, match=r"pages.*5 pages.*axes="):
            raster.read_image(tmp_path / "s.tif")
        assert tiff.stack_length(tmp_path / "s.tif") == 5
        assert same(tiff.read_stack(tmp_path / "s.tif"), stack)
        assert same(tiff.read_stack(tmp_path / "s.tif", 3), stack[3])
        with pytest.raises(CaseError, match="image_missing"):
            tiff.read_stack(tmp_path / "s.tif", 5)
    with tifffile.TiffWriter(tmp_path / "t.tif") as writer:
        writer.write(COLOUR, photometric="rgb")
        writer.write(COLOUR[::4, ::4], photometric="rgb", subfiletype=1)
    assert same(raster.read_image(tmp_path / "t.tif").pixels, COLOUR)
    with tifffile.TiffWriter(tmp_path / "u.tif") as writer:
        writer.write(COLOUR, photometric="rgb")
        writer.write(COLOUR[::2, ::2], photometric="rgb")
    with pytest.raises(CaseError, match="pages"):
        raster.read_image(tmp_path / "u.tif")
    frames = [Image.fromarray(GREY), Image.fromarray(255 - GREY)]
    frames[0].save(tmp_path / "m.gif", save_all=True, append_images=frames[1:])
    with pytest.raises(CaseError, match=r"pages.*2 pages"):
        raster.read_image(tmp_path / "m.gif")
    assert np.array_equal(stacks._frames(tmp_path / "m.gif", None), np.stack([GREY, 255 - GREY]))


@pytest.mark.parametrize(("write", "limits"), [("png", (0, 65535)), ("tif", (1000, 30000))])
def test_sixteen_bits_become_eight_and_can_be_turned_back(tmp_path: Path, write: str, limits: Any) -> None:
    path = tmp_path / f"a.{write}"
    if write == "png":
        path.write_bytes(imagecodecs.png_encode(DEEP_COLOUR))
    else:
        tifffile.imwrite(path, DEEP_COLOUR, photometric="rgb")
    byte, said = to_8bit(raster.read_image(path).pixels, Intensity("window", limits))
    low, high = limits
    inside = (low <= DEEP_COLOUR) & (DEEP_COLOUR <= high)  # noqa: SIM300
    back = said["low"] + byte.astype(np.float64) / 255 * (said["high"] - said["low"])
    assert np.abs(back - DEEP_COLOUR)[inside].max() <= (limits[1] - limits[0]) / 255 / 2 * 1.01


def test_ppm_of_16_bits_a_channel_is_refused_and_grey_is_read(tmp_path: Path) -> None:
    (tmp_path / "a.ppm").write_bytes(b"P6\n# a comment\n31 23\n65535\n" + DEEP_COLOUR.astype(">u2").tobytes())
    with pytest.raises(CaseError, match="16 bits a channel"):
        raster.read_image(tmp_path / "a.ppm")
    (tmp_path / "a.pgm").write_bytes(b"P5\n31 23\n65535\n" + DEEP.astype(">u2").tobytes())
    assert np.array_equal(raster.read_image(tmp_path / "a.pgm").pixels, DEEP)
