"""Objects and absences of union concepts, derived from those of their parts: left + right kidney = kidneys."""

from __future__ import annotations

from typing import Any

import numpy as np

from preprocessing import ontology
from preprocessing.harmonize.slices import objects_of
from preprocessing.schema import rle

Object = dict[str, Any]


def extend(
    objects: list[Object], absent: list[str], unions: tuple[str, ...], shape: tuple[int, int]
) -> tuple[list[Object], list[str]]:
    """Objects and absent concepts of one sample (height, width), with those of `unions` added.

    Every part is an object of the union, numbered in the order of the parts; the parts of a joined union
    are one object. A union whose parts are all absent is absent; one that is neither stays unknown.
    """
    for union in ontology.ordered_unions(unions):
        parts, joined = ontology.parts_of(union)
        members = [item for part in parts for item in objects if item["concept"] == part]
        if members and joined:
            mask = np.logical_or.reduce([rle.decode(item["rle"], *shape) for item in members])
            objects = objects + objects_of(union, [mask])
        elif members:
            objects = objects + [
                {**item, "concept": union, "instance": number} for number, item in enumerate(members, start=1)
            ]
        elif set(parts) <= set(absent):
            absent = sorted({*absent, union})
    return objects, absent
