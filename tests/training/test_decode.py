"""A picture has the same pixels with and without the faster decoder, and what it cannot read is Pillow's to judge."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator

import numpy as np
import pytest
from PIL import Image

from training import decode

COLOURS = np.random.default_rng(0).integers(0, 256, (37, 53, 3), dtype=np.uint8)
GREY = COLOURS[..., 0]


def _png(picture: Image.Image, **options: object) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", **options)
    return buffer.getvalue()


def _with_chunk(payload: bytes, kind: bytes, data: bytes) -> bytes:
    chunk = struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    return payload[:33] + chunk + payload[33:]  # behind the header


RGB, L = Image.fromarray(COLOURS), Image.fromarray(GREY)
PAYLOADS = {
    "RGB": _png(RGB),
    "grey": _png(L),
    "one pixel": _png(RGB.crop((0, 0, 1, 1))),
    "a transparent colour": _png(RGB, transparency=(1, 2, 3)),
    "a transparent grey": _png(L, transparency=3),
    "a transparent colour that is there": _with_chunk(_png(RGB), b"tRNS", struct.pack(">3H", *COLOURS[0, 0].tolist())),
    "a gamma": _with_chunk(_png(RGB), b"gAMA", struct.pack(">I", 30000)),
    "significant bits": _with_chunk(_png(RGB), b"sBIT", b"\5\5\5"),
    "a palette": _png(RGB.quantize(7)),
    "a bit a pixel": _png(L.convert("1")),
    "alpha": _png(RGB.convert("RGBA")),
    "no end": _png(RGB)[:-12],
}
DAMAGED = {
    "cut": _png(RGB)[:-200],
    "cut in its header": _png(RGB)[:20],
    "a flipped byte": bytes([*_png(RGB)[:1000], _png(RGB)[1000] ^ 255, *_png(RGB)[1001:]]),
}


@pytest.fixture
def _pillow_alone(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """As on a machine without imagecodecs."""
    monkeypatch.setattr(decode, "_libpng", lambda: None)
    return


@pytest.mark.parametrize("size", [None, 24])
@pytest.mark.parametrize("preprocessing", ["pillow", "official"])
@pytest.mark.parametrize("name", PAYLOADS)
def test_pixels_are_those_of_pillow(
    name: str, size: int | None, preprocessing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    fast = decode.decode_image(PAYLOADS[name], size, preprocessing)
    monkeypatch.setattr(decode, "_libpng", lambda: None)
    plain = decode.decode_image(PAYLOADS[name], size, preprocessing)
    assert fast.dtype == plain.dtype == np.uint8
    np.testing.assert_array_equal(fast, plain)


def test_the_faster_decoder_is_used_where_it_is_right() -> None:
    used = {name for name, payload in PAYLOADS.items() if decode._plain_png(payload) is not None}
    assert used == {"RGB", "grey", "one pixel", "a gamma", "significant bits", "no end"}
    np.testing.assert_array_equal(decode.decode_image(PAYLOADS["RGB"]), COLOURS)
    np.testing.assert_array_equal(decode.decode_image(PAYLOADS["grey"])[..., 0], GREY)


@pytest.mark.usefixtures("_pillow_alone")
def test_without_it_pillow_decodes() -> None:
    np.testing.assert_array_equal(decode.decode_image(PAYLOADS["RGB"]), COLOURS)


@pytest.mark.parametrize("name", DAMAGED)
def test_a_damaged_picture_is_an_error_either_way(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(OSError, match=r"Truncated|truncated|broken") as fast:
        decode.decode_image(DAMAGED[name])
    monkeypatch.setattr(decode, "_libpng", lambda: None)
    with pytest.raises(OSError, match=r"Truncated|truncated|broken") as plain:
        decode.decode_image(DAMAGED[name])
    assert str(fast.value) == str(plain.value)


def test_a_picture_that_claims_to_be_vast_is_refused_as_before() -> None:
    header = struct.pack(">II5B", 60_000, 60_000, 8, 2, 0, 0, 0)
    chunk = b"IHDR" + header
    start = _png(RGB)[:8] + struct.pack(">I", len(header)) + chunk + struct.pack(">I", zlib.crc32(chunk))
    with pytest.raises(Image.DecompressionBombError):
        decode.decode_image(start + _png(RGB)[33:])
