"""What a picture looks like, in 16 bytes: equal for the same picture after JPEG, resizing, flips, another window.

A code holds the signs of the mid-frequency coefficients of the cosine transform of a locally normalised
32 x 32 grey picture (perceptual hashing by DCT signs: Zauner, Implementation and Benchmarking of
Perceptual Image Hash Functions, 2010). Local normalisation (the local mean taken away, divided by the
local spread) makes the code blind to windows and exposure, and takes away what all pictures of one kind
share: the disc of a fundus photograph, the dark around a scan.

Flipping a picture changes the sign of its odd coefficients and transposing it swaps the two frequencies,
so the codes of all eight orientations follow from one code without the pixels (`orientations`). A volume
has a code of the same kind, from a cube of 16 x 16 x 16, with 48 orientations: also the same volume cut
along another axis is found.
"""

from __future__ import annotations

import hashlib
import itertools
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Code = NDArray[np.uint64]  # (…, 2): 128 bits, the unused ones 0
Grey = NDArray[np.uint8]
Float = NDArray[np.float32]

CODE_BYTES = 16
THUMB_PX = 32
CUBE_PX = 16
MIN_CONTRAST = 2.0  # grey levels: a picture with less spread shows nothing, and equals others that show nothing
MIN_SLICES = 8  # of a volume that gets a code
_PICTURE_BAND = (3, 14)  # sums of frequencies that a code holds: 114 bits of a picture, 110 of a volume
_VOLUME_BAND = (3, 7)
_CODE_BLUR_PX = {32: 3.0, 16: 1.5}  # spread of the local mean, by side
_FLOOR = 4.0  # grey levels: noise weaker than this is not blown up


def grey_square(pixels: NDArray[np.uint8], side: int) -> Grey:
    """(height, width) or (height, width, 3) to a (side, side) grey picture, stretched and antialiased."""
    thin = max(1, min(pixels.shape[:2]) // (16 * side))  # of megapixels, hundreds a cell are enough to average
    image = Image.fromarray(np.ascontiguousarray(pixels[::thin, ::thin]))
    step = min(image.size) // (4 * side)
    if step > 1:  # averaging whole blocks first is several times faster than one long filter
        image = image.reduce(step)
    image = image.resize((side, side), Image.Resampling.BILINEAR)
    return np.asarray(image if image.mode == "L" else image.convert("L"))


def normalised(grey: NDArray[Any], blur_px: float) -> Float:
    """Each value less its local mean, over the local spread: (side, side) or (side, side, side)."""
    values, blur = grey.astype(np.float32), _blur(grey.shape[0], blur_px)
    away = values - _along(blur, values)
    spread = np.sqrt(np.maximum(_along(blur, away * away), 0))
    return (away / (spread + _FLOOR)).astype(np.float32, copy=False)


def picture_code(grey: Grey) -> bytes:
    """The code of a `grey_square` of 32 pixels."""
    return _signs(normalised(grey, _CODE_BLUR_PX[THUMB_PX]), _PICTURE_BAND)


def volume_code(greys: list[Grey]) -> bytes | None:
    """The code of a volume from the `grey_square`s of its slices in order; None where it has too few of them."""
    if len(greys) < MIN_SLICES or float(np.std(greys)) < MIN_CONTRAST:
        return None
    return _signs(normalised(cube(greys, CUBE_PX), _CODE_BLUR_PX[CUBE_PX]), _VOLUME_BAND)


def cube(greys: list[Grey], side: int) -> Float:
    """Slices (count, 32, 32) as a (side, side, side) block, each axis averaged or interpolated to `side`."""
    block = np.stack(greys).astype(np.float32)
    across, along = _resample(len(greys), side), _resample(block.shape[1], side)
    planes = (along @ block @ along.T).swapaxes(0, 1)
    return np.ascontiguousarray((across @ planes).swapaxes(0, 1))


def orientations(codes: Code, kind: str) -> Code:
    """(count, 2) to (orientations, count, 2): the codes of all flips and transpositions; the first is the code itself.

    8 of a picture, 48 of a volume, in the order of `turns`.
    """
    axes, band, side = (3, _VOLUME_BAND, CUBE_PX) if kind == "volume" else (2, _PICTURE_BAND, THUMB_PX)
    places = _places(axes, band, side)
    index = {tuple(place): number for number, place in enumerate(places.tolist())}
    bits = np.unpackbits(codes.view(np.uint8).reshape(len(codes), CODE_BYTES), axis=1)[:, : len(places)]
    found = []
    for order, flips in turns(axes):
        # array[order] then flipped: coefficient k of the result is coefficient k[inverse order] of the picture
        source = [index[tuple(place[order.index(axis)] for axis in range(axes))] for place in places.tolist()]
        odd = (places * np.array(flips)).sum(axis=1) % 2
        found.append(_packed(bits[:, source] ^ odd.astype(np.uint8)))
    return np.stack(found)


@cache
def turns(axes: int) -> tuple[tuple[tuple[int, ...], tuple[int, ...]], ...]:
    """All (order of axes, which to flip) of a square or cube; the first changes nothing."""
    return tuple(itertools.product(itertools.permutations(range(axes)), itertools.product((0, 1), repeat=axes)))


def turned(values: NDArray[Any], turn: int) -> NDArray[Any]:
    """A square or cube in orientation number `turn` of `turns`."""
    order, flips = turns(values.ndim)[turn]
    return np.flip(np.transpose(values, order), tuple(axis for axis, flip in enumerate(flips) if flip))


def code_words(codes: list[bytes]) -> Code:
    """Codes as (count, 2) words, to count differing bits of."""
    return np.frombuffer(b"".join(codes), dtype=np.uint64).reshape(len(codes), 2)


def look(pixels: NDArray[np.uint8], pixels_sha256: str) -> dict[str, Any]:
    """What `HASHES_SCHEMA` says of one picture, and "grey", from which the volume's code is made."""
    grey = grey_square(pixels, THUMB_PX)
    contrast = float(grey.std())
    return {
        "pixels_sha256": pixels_sha256,
        "code": picture_code(grey) if contrast >= MIN_CONTRAST else None,
        "mean": round(float(grey.mean()), 3),
        "contrast": round(contrast, 3),
        "grey": grey,
    }


def pixels_digest(pixels: NDArray[np.uint8]) -> Any:
    """A running SHA-256 of shape and pixels: its hexdigest is `pixels_sha256`, and `content_sha256` goes on from it."""
    digest = hashlib.sha256(f"uint8 {pixels.shape}\n".encode())
    digest.update(np.ascontiguousarray(pixels).data)
    return digest


def _signs(values: Float, band: tuple[int, int]) -> bytes:
    coefficients = _along(_cosines(values.shape[0]), values)
    places = _places(values.ndim, band, values.shape[0])
    return _packed((coefficients[tuple(places.T)] > 0).astype(np.uint8)[None]).tobytes()


def _packed(bits: NDArray[np.uint8]) -> Code:
    padded = np.zeros((len(bits), 8 * CODE_BYTES), dtype=np.uint8)
    padded[:, : bits.shape[1]] = bits
    return np.packbits(padded, axis=1).view(np.uint64)


def _along(matrix: Float, values: Float) -> Float:
    """`matrix` applied along every axis, as products of small matrices: large ones would start threads."""
    flat: Float = np.matmul(np.matmul(matrix, values), matrix.T)
    return flat if flat.ndim == 2 else np.matmul(matrix, flat.swapaxes(0, 1)).swapaxes(0, 1)


@cache
def _places(axes: int, band: tuple[int, int], side: int) -> NDArray[np.int64]:
    """Frequencies (count, axes) of a code's bits, in a fixed order."""
    grid = np.stack(np.meshgrid(*[np.arange(side)] * axes, indexing="ij"), axis=-1).reshape(-1, axes)
    total = grid.sum(axis=1)
    chosen: NDArray[np.int64] = grid[(total >= band[0]) & (total <= band[1])]
    return chosen


@cache
def _cosines(side: int) -> Float:
    """The matrix of the cosine transform DCT-II (Ahmed, Natarajan and Rao 1974), without scale."""
    k, x = np.mgrid[:side, :side]
    result: Float = np.cos(np.pi * k * (2 * x + 1) / (2 * side)).astype(np.float32)
    return result


@cache
def _blur(side: int, blur_px: float) -> Float:
    x = np.arange(side)
    weights = np.exp(-(((x[:, None] - x) / blur_px) ** 2) / 2)
    result: Float = (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)
    return result


@cache
def _resample(count: int, side: int) -> Float:
    """(side, count): triangle weights as wide as the coarser grid, rows adding up to 1."""
    scale = count / side
    centres = (np.arange(side) + 0.5) * scale - 0.5
    weights = np.maximum(0, 1 - np.abs(np.arange(count) - centres[:, None]) / max(scale, 1))
    result: Float = (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)
    return result
