"""What the ten tasks of the Medical Segmentation Decathlon share: layout, licence, address.

Source https://medicaldecathlon.com, doi:10.1038/s41467-022-30695-9, CC BY-SA 4.0. `imagesTr`, `labelsTr` and,
without labels, `imagesTs`; a file a patient, of several frames where a task has several sequences.
"""

from __future__ import annotations

from collections.abc import Mapping

from preprocessing.cards import ByValue, DatasetCard, Instances, Intensity, Layout, Licence, Official

_NOT_DATA = {
    r"(.*/)?imagesTs/.*": "test images of the challenge, their labels are not public",
    r"(.*/)?dataset\.json": "a list of the same files",
}


def msd_card(
    task: str,
    title: str,
    modality: str,
    labels: Mapping[int, str],
    *,
    sha256: str,
    intensity: Intensity,
    annotator: str,
    instances: Instances = "whole",
    frame: int | None = None,
    unions: tuple[str, ...] = (),
    family: str = "",
) -> DatasetCard:
    """The card of a task, `Task03_Liver` for one. Every label is looked for in every volume.

    `sha256` is the archive's, as torch-em 6f71247c lists it.
    """
    return DatasetCard(
        name=f"MSD_{task}",
        title=f"MSD {title}",
        modality=modality,
        licence=Licence("CC BY-SA 4.0", spdx="CC-BY-SA-4.0", redistribution="yes", commercial="yes"),
        citation="Antonelli et al., The Medical Segmentation Decathlon, Nat Commun 13 (2022) 4128",
        doi="10.1038/s41467-022-30695-9",
        homepage="http://medicaldecathlon.com",
        layout_checked="torch-em 6f71247c, medical/msd.py; real files of Task04; labels of dataset.json as remembered",
        layouts=(
            Layout(
                image=rf"({task}/)?imagesTr/(?P<case>[^/]+)\.nii\.gz",
                label=rf"({task}/)?labelsTr/(?P<case>[^/]+)\.nii\.gz",
            ),
        ),
        labels=ByValue(labels),
        intensity=intensity,
        instances=instances,
        searched=tuple(sorted(set(labels.values()))),
        annotator=annotator,
        not_data=_NOT_DATA,
        official=Official(f"https://msd-for-monai.s3-us-west-2.amazonaws.com/{task}.tar", sha256, 0, "tar", root=task),
        frame=frame,
        unions=unions,
        family=family,
    )
