"""Test data of ivadomed in BIDS: spleen CT, cervical MR and electron microscopy of axons, labels in derivatives.

Source https://github.com/ivadomed/data-testing (794a307), doi:10.21105/joss.02868. Three small BIDS datasets, each
with `derivatives/labels`, and one of pictures without labels. `lesion-manual` are dummies, `labels-disc` are points.
The subject is the group: run-1 and run-2 are one picture twice.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from preprocessing.cards import ByFile, ByValue, DatasetCard, Intensity, Layout, Licence, RawCase
from preprocessing.pairing import find_cases

CARD = DatasetCard(
    name="ivadomed_data-testing",
    title="ivadomed test data (BIDS)",
    modality="MR",
    licence=Licence(
        "spleen CC BY-SA 4.0, spine CC BY 4.0, axons MIT; the repository states none", commercial="unknown"
    ),
    citation="Gros et al., ivadomed, JOSS 6(58) (2021) 2868",
    doi="10.21105/joss.02868",
    homepage="https://github.com/ivadomed/data-testing",
    layout_checked="the files themselves; BIDS derivatives as ivadomed's documentation has them",
    layouts=(
        Layout(
            image=r"ct_scan/sub-[^/]+/ct/(?P<case>sub-[^/]+_ct)\.nii\.gz",
            label=r"ct_scan/derivatives/labels/sub-[^/]+/ct/(?P<case>sub-[^/]+_ct)_seg-manual\.nii\.gz",
            labels=ByValue({1: "spleen"}),
            modality="CT",
            intensity=Intensity("window", (-160.0, 240.0)),
        ),
        Layout(
            image=r"microscopy_png/sub-[^/]+/(ses-[^/]+/)?micr/(?P<case>sub-[^/]+_SEM)\.png",
            label=r"microscopy_png/derivatives/labels/.*/(?P<case>sub-[^/]+_SEM)_seg-(?P<part>axon|myelin)-manual\.png",
            labels=ByFile({"axon": "axon", "myelin": "myelin sheath"}),
            instances="components",
            modality="electron microscopy",
            intensity=Intensity(),
        ),
        Layout(
            image=r"data_test_png_tif/sub-[^/]+/micr/(?P<case>sub-[^/]+_SEM)\.(png|tif)", modality="electron microscopy"
        ),
        Layout(
            image=r"sub-[^/]+/anat/(?P<case>sub-[^/]+)\.nii\.gz",
            label=r"derivatives/labels/sub-[^/]+/anat/(?P<case>sub-[^/]+)_seg-manual\.nii\.gz",
        ),
    ),
    labels=ByValue({1: "spinal cord"}),
    intensity=Intensity("percentile", (0.5, 99.5)),
    annotator="of spine-generic, the Decathlon and AxonDeepSeg",
    group=r"^(sub-[A-Za-z0-9]+)_",
    not_data={
        r".*_(lesion-manual|labels-disc-manual)\.nii\.gz": "dummy labels, and points",
        r"(.*/)?[^/]+\.(json|tsv|csv)": "descriptions of BIDS",
    },
)


def cases(root: Path) -> Iterator[RawCase]:
    """Images with their derivatives; pictures without labels are orphans."""
    return find_cases(CARD, root)
