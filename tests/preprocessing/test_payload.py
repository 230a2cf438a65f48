"""What is written holds the very pixels, whatever the codec, and the PNG opens in tools of others."""

from __future__ import annotations

import io
import subprocess
import sys
import zlib

import imagecodecs
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from preprocessing.harmonize.payload import decode, encode, png
from preprocessing.schema.pixels import CODECS, array_of, channels_of, open_picture


@given(st.integers(1, 40), st.integers(1, 40), st.sampled_from([1, 3]), st.integers(0, 2**32 - 1))
def test_two_decoders_of_others_give_the_pixels_back(height: int, width: int, channels: int, seed: int) -> None:
    shape = (height, width) if channels == 1 else (height, width, channels)
    pixels = np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
    written = png(pixels)
    with Image.open(io.BytesIO(written)) as image:
        assert (image.format, image.mode, image.info) == ("PNG", "L" if channels == 1 else "RGB", {})
        assert np.array_equal(np.asarray(image), pixels)
    assert np.array_equal(imagecodecs.png_decode(written), pixels)


def test_chunks_are_sound_and_there_are_no_others() -> None:
    written = png(np.zeros((3, 5), dtype=np.uint8))
    assert written[:8] == b"\x89PNG\r\n\x1a\n"
    kinds, at = [], 8
    while at < len(written):
        length = int.from_bytes(written[at : at + 4], "big")
        kinds.append(written[at + 4 : at + 8])
        assert zlib.crc32(written[at + 4 : at + 8 + length]) == int.from_bytes(written[at + 8 + length :][:4], "big")
        at += 12 + length
    assert kinds == [b"IHDR", b"IDAT", b"IEND"]


def test_a_slice_of_a_larger_array_is_written_as_it_looks() -> None:
    volume = np.arange(6 * 7 * 8, dtype=np.uint8).reshape(6, 7, 8)
    assert np.array_equal(imagecodecs.png_decode(png(volume[::-1, :, 3])), volume[::-1, :, 3])


@pytest.mark.parametrize("shape", [(4, 4, 2), (4, 4, 4), (0, 4), (4,)])
def test_other_shapes_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="uint8 pixels"):
        png(np.zeros(shape, dtype=np.uint8))


def test_other_types_are_refused() -> None:
    with pytest.raises(ValueError, match="found uint16"):
        png(np.zeros((4, 4), dtype=np.uint16))


@given(
    st.integers(1, 40), st.integers(1, 40), st.sampled_from([1, 3]), st.sampled_from(CODECS), st.integers(0, 2**32 - 1)
)
def test_every_codec_gives_the_very_pixels_back(height: int, width: int, channels: int, codec: str, seed: int) -> None:
    shape = (height, width) if channels == 1 else (height, width, 3)
    noise = np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
    for pixels in (noise, np.full(shape, seed % 256, dtype=np.uint8), noise[::-1, ::-1]):
        payload = encode(pixels, codec)
        found = decode(payload)
        assert (found.dtype, found.shape) == (np.uint8, shape)
        assert np.array_equal(found, pixels)
        assert channels_of(payload) == channels
        with open_picture(payload) as picture:
            assert picture.mode == ("L" if channels == 1 else "RGB")
            assert np.array_equal(np.asarray(picture), pixels)


@pytest.mark.parametrize("codec", CODECS)
def test_a_picture_of_many_pixels_and_odd_sizes_loses_nothing(codec: str) -> None:
    rows, columns = np.mgrid[:1023, :1537]
    smooth = ((rows * 3 + columns * 5) // 40 % 256).astype(np.uint8)
    colours = np.stack([smooth, smooth.T[:1537, :1023].T[::-1], smooth[::-1]], axis=-1)
    for pixels in (smooth, colours):
        assert np.array_equal(decode(encode(pixels, codec)), pixels)


def test_an_unknown_codec_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="expected one of png, htj2k, zstd, found 'jxl'"):
        encode(np.zeros((4, 4), dtype=np.uint8), "jxl")
    with pytest.raises(ValueError, match="found uint16"):
        encode(np.zeros((4, 4), dtype=np.uint16), "htj2k")  # type: ignore[arg-type]


def test_a_broken_zstd_payload_says_so() -> None:
    payload = encode(np.arange(200, dtype=np.uint8).reshape(10, 20), "zstd")
    for broken in (payload[:-3], payload[:20], payload[:13] + bytes(40)):
        with pytest.raises(ValueError, match="zstd payload of 10 x 20 x 1"):
            decode(broken)


def test_a_jpeg_may_come_smaller_but_never_below_what_is_enough() -> None:
    buffer = io.BytesIO()
    Image.fromarray(np.zeros((400, 900, 3), dtype=np.uint8)).save(buffer, format="JPEG")
    assert decode(buffer.getvalue()).shape == (400, 900, 3)
    assert decode(buffer.getvalue(), enough_px=100).shape == (100, 225, 3)
    assert decode(png(np.zeros((400, 900), dtype=np.uint8)), enough_px=100).shape == (400, 900)


def test_a_machine_without_imagecodecs_reads_all_but_htj2k_and_is_told_the_fix() -> None:
    """A process of its own, where every package that a bare GPU machine lacks cannot be imported."""
    program = """
import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {"imagecodecs", "ray", "SimpleITK", "prefect", "mlflow", "dvc", "pydicom", "tifffile"}:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Absent())
from infra.errors import DataError
from training.prepared import decode_image
for line in sys.stdin:
    codec, payload = line.split()
    try:
        print(codec, decode_image(bytes.fromhex(payload), 4).shape)
    except DataError as error:
        print(codec, error)
"""
    pixels = np.arange(60, dtype=np.uint8).reshape(4, 5, 3)
    lines = "".join(f"{codec} {encode(pixels, codec).hex()}\n" for codec in CODECS)
    done = subprocess.run([sys.executable, "-c", program], input=lines, text=True, capture_output=True, check=True)
    said = dict(line.split(" ", 1) for line in done.stdout.splitlines())
    assert said["png"] == said["zstd"] == "(4, 4, 3)"
    assert "pip install imagecodecs" in said["htj2k"]
    assert "image_codec: zstd" in said["htj2k"]


@given(st.integers(1, 60), st.integers(1, 60), st.sampled_from(["1", "L", "RGB", "RGBA", "I;16", "F"]))
def test_a_picture_of_any_mode_is_the_array_that_numpy_makes(height: int, width: int, mode: str) -> None:
    picture = Image.effect_noise((width, height), 80).convert(mode)
    found = array_of(picture)
    assert np.array_equal(found, np.asarray(picture))
    assert found.dtype == np.asarray(picture).dtype


def test_a_picture_too_large_for_one_block_of_memory_is_read_too() -> None:
    picture = Image.effect_noise((5003, 4001), 80)
    picture = picture.resize(picture.size)
    pixels = array_of(picture)
    expected = np.asarray(picture)
    del picture  # the pixels must outlive it
    assert np.array_equal(pixels, expected)
