"""The native layouts of the datasets of volumes."""

from __future__ import annotations

import numpy as np

from tests.preprocessing.native.pictures import numbered, of, pairs
from tests.preprocessing.native.tree import Native
from tests.preprocessing.native.writers import Writer, binary, one, values

ABDOMEN = {
    "spleen": 1, "right kidney": 2, "left kidney": 3, "gallbladder": 4, "esophagus": 5, "liver": 6, "stomach": 7,
    "aorta": 8, "inferior vena cava": 9,
}  # fmt: skip
BTCV = {**ABDOMEN, "portal and splenic vein": 10, "pancreas": 11, "right adrenal gland": 12, "left adrenal gland": 13}
AMOS = {
    **ABDOMEN, "pancreas": 10, "right adrenal gland": 11, "left adrenal gland": 12, "duodenum": 13,
    "urinary bladder": 14, "prostate or uterus": 15,
}  # fmt: skip
TASKS: dict[str, dict[str, int]] = {
    "Task01_BrainTumour": {"peritumoral edema": 1, "non-enhancing tumor core": 2, "enhancing tumor": 3},
    "Task02_Heart": {"left atrium": 1},
    "Task03_Liver": {"liver": 1, "liver tumor": 2},
    "Task04_Hippocampus": {"anterior hippocampus": 1, "posterior hippocampus": 2},
    "Task05_Prostate": {"prostate peripheral zone": 1, "prostate transition zone": 2},
    "Task06_Lung": {"lung tumor": 1},
    "Task07_Pancreas": {"pancreas": 1, "pancreas tumor": 2},
    "Task08_HepaticVessel": {"hepatic vessel": 1, "liver tumor": 2},
    "Task09_Spleen": {"spleen": 1},
    "Task10_Colon": {"colon cancer": 1},
}
FRAMES = {"Task01_BrainTumour": 4, "Task05_Prostate": 2}
STRUCTURES = {
    "kidney_left": "left kidney", "kidney_right": "right kidney", "autochthon_left": "left autochthonous back muscle",
}  # fmt: skip
HEART = {"right ventricle blood pool": 1, "myocardium": 2, "left ventricle blood pool": 3}


def _frames(count: int) -> object:
    """The volume as the first of several frames of a 4D file."""
    return lambda array: np.stack([array, *[np.zeros_like(array)] * (count - 1)])


def _segmentations() -> dict[str, Writer]:
    return {"{n}/segmentations/" + name + ".nii.gz": one(concept, 1) for name, concept in STRUCTURES.items()}


VOLUMES: dict[str, Native] = {
    "ACOUSLIC": Native(
        image="images/stacked_fetal_ultrasound/{n}.mha",
        labels={
            "masks/stacked_fetal_abdomen/{n}.mha": values(
                {"fetal abdomen in an optimal plane": 1, "fetal abdomen in a suboptimal plane": 2}
            )
        },
        names=numbered("0d0a3298-a9c6-43c3-a9e3-df3a9c0afa{:02d}"),
        case_id="{n}",
        concepts=("fetal abdomen in an optimal plane", "fetal abdomen in a suboptimal plane"),
        deep=True,
        beside={"circumferences/fetal_abdominal_circumferences_per_sweep.csv": b"uuid,subject_id\n"},
    ),
    "SegThy": Native(
        image="MRI_volunteer_dataset/MRI/{n}_MRI.nii.gz",
        labels={
            "MRI_volunteer_dataset/MRI_thyroid_label/{n}_MRI_thyroid_label.nii.gz": one("thyroid gland", 1),
            "MRI_volunteer_dataset/MRI_thyroid+jugular+carotid_label/{n}_MRI_label.nii.gz": values(
                {"thyroid gland": 1, "common carotid artery": 4, "jugular vein": 5}
            ),
        },
        names=numbered("{:03d}"),
        case_id="MRI_{n}",
        concepts=("thyroid gland", "common carotid artery", "jugular vein"),
        deep=True,
        dtype=np.int16,
    ),
    "MUCIC_Colon": Native(
        image="{n}/image-final_{k}.h5",
        labels={"{n}/image-labels_{k}.h5": binary(1, key="Image", dtype=np.uint16)},
        # case 0 and 1 are one number in two variants
        names=lambda case: {
            "n": f"ColonTissue_{'High' if case == 1 else 'Low'}Noise_3D_HDF5",
            "k": f"{max(case - 1, 0):04d}",
        },
        case_id="{n}_{k}",
        concepts=("cell nucleus",),
        deep=True,
        dtype=np.uint16,
        image_key="Image",
        together=True,
    ),
    "MUCIC_HL60": Native(
        image="{n}/image-final_{k}.h5",
        labels={"{n}/image-labels_{k}.h5": binary(1, key="Image", dtype=np.uint16)},
        names=lambda case: {
            "n": f"HL60_{'High' if case == 1 else 'Low'}Noise_C00_3D_HDF5",
            "k": f"{max(case - 1, 0):04d}",
        },
        case_id="{n}_{k}",
        concepts=("cell nucleus",),
        deep=True,
        dtype=np.uint16,
        image_key="Image",
        together=True,
    ),
    "NucMM-Z": Native(
        image="Zebrafish (NucMM-Z)/Image/{part}/img_{n}.h5",
        labels={"Zebrafish (NucMM-Z)/Label/{part}/seg_{n}.h5": binary(9, key="main", dtype=np.uint32)},
        names=of(("train", "train", "val"), "0000_0576_{:04d}"),
        case_id="{part}_{n}",
        concepts=("cell nucleus",),
        deep=True,
        image_key="main",
        splits=("train", "train", "val"),
    ),
    "UroCell": Native(
        image="UroCell-master/data/fib1-{n}.nii.gz",
        labels={
            "UroCell-master/mito/instance/fib1-{n}.nii.gz": one("mitochondrion", 7),
            "UroCell-master/lyso/instance/fib1-{n}.nii.gz": one("lysosome", 3),
            "UroCell-master/golgi/precise/fib1-{n}.nii.gz": one("golgi apparatus", 1),
        },
        names=numbered("{}-0-0"),
        case_id="fib1-{n}",
        concepts=("mitochondrion", "lysosome", "golgi apparatus"),
        deep=True,
        beside={"UroCell-master/mito/binary/fib1-1-0-0.nii.gz": b"", "UroCell-master/fv/mesh/a/a-1.obj": b""},
    ),
    "nnUNet_Dataset004_Hippocampus": Native(
        image="Dataset004_Hippocampus/imagesTr/{n}_0000.nii.gz",
        labels={"Dataset004_Hippocampus/labelsTr/{n}.nii.gz": values(TASKS["Task04_Hippocampus"])},
        names=numbered("hippocampus_{:03d}"),
        case_id="{n}",
        concepts=tuple(TASKS["Task04_Hippocampus"]),
        deep=True,
        dtype=np.int16,
        beside={"Dataset004_Hippocampus/dataset.json": b"{}"},
    ),
    "BTCV": Native(
        image="Abdomen/RawData/Training/img/img{n}.nii.gz",
        labels={"Abdomen/RawData/Training/label/label{n}.nii.gz": values(BTCV)},
        names=numbered("{:04d}"),
        case_id="{n}",
        concepts=tuple(BTCV),
        deep=True,
        dtype=np.int16,
        beside={"Abdomen/RawData/Testing/img/img0061.nii.gz": b""},
    ),
    "ACDC": Native(
        image="ACDC/database/{part}/{owner}/{owner}_frame{k}.nii.gz",
        labels={"ACDC/database/{part}/{owner}/{owner}_frame{k}_gt.nii.gz": values(HEART)},
        names=lambda case: {
            "part": "training" if case < 2 else "testing",
            "owner": f"patient{1 if case < 2 else 99 + case:03d}",
            "k": f"{case + 1:02d}",
        },
        case_id="{owner}_{owner}_frame{k}",
        concepts=tuple(HEART),
        deep=True,
        dtype=np.int16,
        together=True,
        splits=("development", "development", "test"),
        beside={"ACDC/database/training/patient001/patient001_4d.nii.gz": b"", "ACDC/database/training/Info.cfg": b""},
    ),
    "AMOS22": Native(
        image="amos22/images{part}/{n}.nii.gz",
        labels={"amos22/labels{part}/{n}.nii.gz": values(AMOS)},
        names=lambda case: {"part": ("Tr", "Va", "Ts")[min(case, 2)], "n": f"amos_{(1, 2, 507, 508, 5)[case]:04d}"},
        case_id="{n}",
        concepts=tuple(AMOS),
        deep=True,
        dtype=np.int16,
        splits=("train", "val", "test"),
        beside={"amos22/dataset.json": b"{}"},
    ),
    "KiTS23": Native(
        image="kits23/dataset/{n}/imaging.nii.gz",
        labels={"kits23/dataset/{n}/segmentation.nii.gz": values({"kidney": 1, "kidney tumor": 2, "kidney cyst": 3})},
        names=numbered("case_{:05d}"),
        case_id="{n}",
        concepts=("kidney", "kidney tumor", "kidney cyst"),
        deep=True,
        dtype=np.int16,
        beside={"kits23/dataset/case_00001/instances/tumor_instance-1_annotation-1.nii.gz": b""},
    ),
    "BraTS2023-GLI": Native(
        image="ASNR-MICCAI-BraTS2023-GLI-Challenge-TrainingData/{n}/{n}-t2f.nii.gz",
        labels={
            "ASNR-MICCAI-BraTS2023-GLI-Challenge-TrainingData/{n}/{n}-seg.nii.gz": values(
                {"non-enhancing tumor core": 1, "peritumoral edema": 2, "enhancing tumor": 3}
            )
        },
        names=pairs("BraTS-GLI-{:05d}", "{:03d}", "{}-{}"),
        case_id="{n}",
        concepts=("non-enhancing tumor core", "peritumoral edema", "enhancing tumor"),
        deep=True,
        dtype=np.int16,
        together=True,
    ),
    "PROMISE12": Native(
        image="training_data/{n}.mhd",
        labels={"training_data/{n}_segmentation.mhd": binary(1)},
        names=numbered("Case{:02d}"),
        case_id="{n}",
        concepts=("prostate",),
        deep=True,
        dtype=np.int16,
    ),
    "TotalSegmentator_v2": Native(
        image="{n}/ct.nii.gz",
        labels=_segmentations(),
        names=numbered("s{:04d}"),
        case_id="{n}",
        concepts=tuple(STRUCTURES.values()),
        deep=True,
        dtype=np.int16,
        splits=("train", "val", "test"),
        beside={"meta.csv": b"\xef\xbb\xbfimage_id;age;split\ns0001;50;train\ns0002;51;val\ns0003;52;test\n"},
    ),
    "TotalSegmentator_MR": Native(
        image="{n}/mri.nii.gz",
        labels=_segmentations(),
        names=numbered("s{:04d}"),
        case_id="{n}",
        concepts=tuple(STRUCTURES.values()),
        deep=True,
        dtype=np.int16,
    ),
    **{
        f"MSD_{task}": Native(
            image=task + "/imagesTr/{n}.nii.gz",
            labels={task + "/labelsTr/{n}.nii.gz": values(codes)},
            names=numbered(task[7:].lower() + "_{:03d}"),
            case_id="{n}",
            concepts=tuple(codes),
            deep=True,
            dtype=np.int16,
            beside={task + "/imagesTs/x.nii.gz": b"", task + "/dataset.json": b"{}"},
            axes=_frames(FRAMES[task]) if task in FRAMES else lambda array: array,
        )
        for task, codes in TASKS.items()
    },
}
