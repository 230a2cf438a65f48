"""The PNG that is written opens in tools of others and holds the very pixels."""

from __future__ import annotations

import io
import zlib

import imagecodecs
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from preprocessing.harmonize.payload import png


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
