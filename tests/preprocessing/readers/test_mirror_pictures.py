"""Every kind of picture and array in the mirror opens, and 8-bit pictures are what Pillow shows."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

import numpy as np
from PIL import Image

from preprocessing.readers import raster
from preprocessing.readers.sniff import format_of, head_of, kind_at

_EVERY = 25  # of each folder and format


def test_pictures_of_the_mirror_are_what_pillow_shows(mirror: Path) -> None:
    kinds: dict[tuple[str, str], list[Path]] = defaultdict(list)
    for path in sorted(mirror.rglob("*")):
        if path.is_file() and kind_at(path) == "raster" and format_of(head_of(path)) != "unknown":
            kinds[(path.relative_to(mirror).parts[0], format_of(head_of(path)))].append(path)
    assert {name for _, name in kinds} >= {"png", "jpeg", "bmp", "tiff"}
    for paths in kinds.values():
        for path in paths[::_EVERY]:
            ours = raster.read_image(path).pixels
            assert raster.read_label(path).shape[:2] == ours.shape[:2]
            with Image.open(path) as image:
                theirs = np.asarray(image)
                if image.mode == "P":
                    theirs = np.asarray(image.convert("RGB"))
            if theirs.dtype == ours.dtype and ours.itemsize == 1:
                theirs = theirs[..., : ours.shape[2]] if ours.ndim == 3 else theirs.reshape(*ours.shape, -1)[..., 0]
                assert np.array_equal(ours, theirs), path.name


def test_wrong_names_in_the_mirror_are_seen_through(mirror: Path) -> None:
    assert kind_at(mirror / "quirks_pydicom/zipMR.gz") == "dicom"
    assert kind_at(mirror / "quirks_pydicom/no_meta.dcm") == "dicom"
    assert kind_at(mirror / "MedSAM2_CT_DeepLesion_npz/CT_Lesion_000001_02_01_008-023.npz") == "array"
    assert kind_at(mirror / "BTCV_IMIS/label/x___ABD_001_100.(13, 512, 512, 1).npz") == "array"
