"""DICOM-SEG objects that tests write, through highdicom."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import highdicom
import numpy as np
import pydicom
from pydicom.dataset import Dataset
from pydicom.sr.coding import Code

from tests.made_dicom import phantom

TYPES = highdicom.seg.SegmentationTypeValues
CODE = Code("4147007", "SCT", "Mass")


def masks() -> np.ndarray:
    """Two overlapping asymmetric segments (z, y, x, 2), empty on the first and the last slice."""
    made = np.zeros((*phantom().shape, 2), dtype=np.uint8)
    made[1:7, 3:11, 2:9, 0] = 1
    made[4:8, 8:20, 5:6, 1] = 1
    made[6, 20, 18, 1] = 1
    return made


def segmentation(
    sources: list[Dataset], pixels: np.ndarray, kind: Any, names: tuple[str, str] = ("Part 1", "Part 2"), **options: Any
) -> Any:
    """A segmentation of two segments over the slices of a series."""
    described = [
        highdicom.seg.SegmentDescription(
            segment_number=number,
            segment_label=names[number - 1],
            segmented_property_category=CODE,
            segmented_property_type=CODE,
            algorithm_type=highdicom.seg.SegmentAlgorithmTypeValues.MANUAL,
        )
        for number in (1, 2)
    ]
    return highdicom.seg.Segmentation(
        source_images=sources,
        pixel_array=pixels,
        segmentation_type=kind,
        segment_descriptions=described,
        series_instance_uid="1.2.3.77",
        series_number=7,
        sop_instance_uid="1.2.3.78",
        instance_number=1,
        manufacturer="made",
        manufacturer_model_name="made",
        software_versions="1",
        device_serial_number="1",
        **options,
    )


def sorted_sources(paths: list[Path]) -> list[Dataset]:
    """The slices of a series in the order of their numbers."""
    return sorted((pydicom.dcmread(path) for path in paths), key=lambda made: int(made.InstanceNumber))
