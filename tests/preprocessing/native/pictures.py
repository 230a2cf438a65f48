"""The native layouts of the datasets of pictures."""

from __future__ import annotations

import numpy as np

from tests.preprocessing.native.tree import Fields, Native, cut
from tests.preprocessing.native.writers import (
    binary,
    colours,
    contour,
    imagescope,
    labelme,
    one,
    outline,
    save,
    values,
)


def numbered(pattern: str) -> object:
    """Names that count: the field `n` of case i is `pattern` with i."""

    def names(case: int) -> Fields:
        return {"n": pattern.format(case + 1)}

    return names


def pairs(first: str, second: str, pattern: str = "{}_{}") -> object:
    """Names of which cases 0 and 1 share the first half, and the others have one of their own."""

    def names(case: int) -> Fields:
        owner = first.format(1 if case < 2 else case + 1)
        return {"n": pattern.format(owner, second.format(case + 1)), "owner": owner, "k": second.format(case + 1)}

    return names


def of(parts: tuple[str, ...], pattern: str) -> object:
    """Names with the official part of case i as `part`, the last one for the cases beyond."""

    def names(case: int) -> Fields:
        return {"part": parts[min(case, len(parts) - 1)], "n": pattern.format(case + 1)}

    return names


BREAST = ("benign breast tumor", "malignant breast tumor")
BREAST_COLOURS = {BREAST[0]: (0, 255, 0), BREAST[1]: (255, 0, 0)}
CHOLEC = {
    "liver ligament": 5, "abdominal wall": 11, "fat": 12, "intestine": 13, "liver": 21, "gallbladder": 22,
    "connective tissue": 23, "blood": 24, "cystic duct": 25, "grasper": 31, "l-hook electrocautery": 32,
    "hepatic vein": 33,
}  # fmt: skip
M2CAI = {
    "grasper": (0, 85, 170), "bipolar forceps": (0, 85, 255), "l-hook electrocautery": (0, 170, 255),
    "surgical scissors": (0, 255, 85), "clip applier": (0, 255, 170), "suction irrigator": (85, 0, 170),
    "specimen bag": (85, 0, 255), "trocar": (170, 85, 85), "surgical clip": (170, 170, 170), "liver": (85, 170, 0),
    "gallbladder": (85, 170, 255), "fat": (85, 255, 0), "abdominal wall": (85, 255, 170), "artery": (170, 0, 255),
    "intestine": (255, 0, 255), "bile": (255, 255, 0), "blood": (255, 0, 0),
}  # fmt: skip
QU = "Infection Segmentation Data/Infection Segmentation Data/{part}/COVID-19"
PAPILA = "PapilaDB/ExpertsSegmentations/Contours/{n}"

PICTURES: dict[str, Native] = {
    "COVID-QU-Ex": Native(
        image=QU + "/images/{n}.png",
        labels={QU + "/lung masks/{n}.png": one("lung"), QU + "/infection masks/{n}.png": one("lung infection")},
        names=of(("Train", "Val", "Test"), "covid_{}"),
        case_id="Infection_Segmentation_Data_{n}",
        concepts=("lung", "lung infection"),
        splits=("train", "val", "test"),
    ),
    "ChestXrayMasks": Native(
        image="Lung Segmentation/CXR_png/{n}.png",
        labels={"Lung Segmentation/masks/{n}_mask.png": binary()},
        names=numbered("CHNCXR_{:04d}_0"),
        case_id="{n}",
        concepts=("lung",),
        beside={"Lung Segmentation/ClinicalReadings/CHNCXR_0001_0.txt": b"normal"},
    ),
    "Pneumothorax": Native(
        image="siim-acr-pneumothorax/png_images/{n}_{part}_1_.png",
        labels={"siim-acr-pneumothorax/png_masks/{n}_{part}_1_.png": binary()},
        names=of(("train", "train", "test"), "{}"),
        case_id="{n}_{part}_1",
        concepts=("pneumothorax",),
        splits=("development", "development", "test"),
        beside={"siim-acr-pneumothorax/stage_1_train_images.csv": b"new_filename,has_pneumo\n"},
    ),
    "BTXRD": Native(
        image="BTXRD/images/{n}.jpeg",
        labels={"BTXRD/Annotations/{n}.json": labelme({"bone tumor": "osteochondroma"})},
        names=numbered("IMG{:06d}"),
        case_id="{n}",
        concepts=("bone tumor",),
        spoil=cut,
        spoilt="unreadable",
        beside={"BTXRD/dataset.csv": b"image_id\n"},
    ),
    "BUS-UCLM": Native(
        image="BUS-UCLM/images/{n}.png",
        labels={"BUS-UCLM/masks/{n}.png": colours(BREAST_COLOURS)},
        names=lambda case: {"n": f"{'ALWI' if case < 2 else 'CA' + 'ABCDE'[case]}_{case:03d}"},
        case_id="{n}",
        concepts=BREAST,
        together=True,
        beside={"BUS-UCLM/INFO.csv": b"Image;Benign\n"},
    ),
    "US-Nerve": Native(
        image="train/{n}.tif",
        labels={"train/{n}_mask.tif": binary()},
        names=pairs("{}", "{}"),
        case_id="{n}",
        concepts=("brachial plexus",),
        together=True,
        beside={"test/7.tif": b"II*\0", "train_masks.csv": b"subject,img,pixels\n"},
    ),
    "PS-FH-AOP-2023": Native(
        image="Pubic Symphysis-Fetal Head Segmentation and Angle of Progression/image_mha/{n}.mha",
        labels={
            "Pubic Symphysis-Fetal Head Segmentation and Angle of Progression/label_mha/{n}.mha": values(
                {"pubic symphysis": 1, "fetal head": 2}
            )
        },
        names=numbered("{:05d}"),
        case_id="{n}",
        concepts=("pubic symphysis", "fetal head"),
        colour=True,
        axes=lambda array: np.moveaxis(array, -1, 0),
    ),
    "CT2USforKidneySeg": Native(
        image="slice/slice/{n}.png",
        labels={"mask/mask/{n}.png": binary()},
        names=numbered("{:04d}"),
        case_id="{n}",
        concepts=("kidney",),
    ),
    "CholecSeg8k": Native(
        image="{owner}/{owner}_00080/{n}_endo.png",
        labels={"{owner}/{owner}_00080/{n}_endo_watershed_mask.png": values(CHOLEC, rgba=True, background=50)},
        names=pairs("video{:02d}", "frame_{}", "{1}"),
        case_id="{owner}_00080_{n}",
        concepts=tuple(CHOLEC),
        colour=True,
        together=True,
        beside={"video01/video01_00080/frame_1_endo_color_mask.png": b"\x89PNG"},
    ),
    "m2caiSeg": Native(
        image="m2caiSeg dataset/{part}/images/{n}.jpg",
        labels={"m2caiSeg dataset/{part}/groundtruth/{n}_gt.png": colours(M2CAI)},
        names=of(("train", "train", "test"), "{}_1"),
        case_id="{part}_{n}",
        concepts=tuple(M2CAI),
        colour=True,
        splits=("development", "development", "test"),
        beside={"m2caiSeg dataset/trainval/images/1_1.jpg": b"\xff\xd8"},
    ),
    "PolypGen": Native(
        image="PolypGen2021_MultiCenterData_v3/data_{owner}/images_{owner}/{k}.jpg",
        labels={"PolypGen2021_MultiCenterData_v3/data_{owner}/masks_{owner}/{k}_mask.jpg": binary(rgb=True)},
        names=pairs("C{}", "100H{:04d}"),
        case_id="data_{owner}_{k}",
        concepts=("polyp",),
        colour=True,
        together=True,
        beside={"PolypGen2021_MultiCenterData_v3/data_C1/bbox_C1/100H0001.txt": b"polyp 1 2 3 4"},
    ),
    "BKAI-IGH": Native(
        image="train/train/{n}.jpeg",
        labels={
            "train_gt/train_gt/{n}.jpeg": colours(
                {"neoplastic polyp": (255, 0, 0), "non-neoplastic polyp": (0, 255, 0)}
            )
        },
        names=numbered("0a5f3601ad4f13ccf1f4b331a412fc{:02d}"),
        case_id="{n}",
        concepts=("neoplastic polyp", "non-neoplastic polyp"),
        colour=True,
        beside={"test/test/1.jpeg": b"\xff\xd8", "sample_submission.csv": b"Id,Expected\n"},
    ),
    "FetoPlac": Native(
        image="Fetoscopy Placenta Dataset/Vessel_segmentation_annotations/{owner}/images/{k}.png",
        labels={
            "Fetoscopy Placenta Dataset/Vessel_segmentation_annotations/{owner}/masks_gt/{k}_mask.png": binary(rgb=True)
        },
        names=pairs("video{:02d}", "anon001_{:05d}"),
        case_id="{owner}_{k}",
        concepts=("placental vessel",),
        colour=True,
        together=True,
    ),
    "MoNuSeg": Native(
        image="MoNuSeg 2018 Training Data/Tissue Images/{n}.tif",
        labels={"MoNuSeg 2018 Training Data/Annotations/{n}.xml": imagescope},
        names=pairs("TCGA-A7-A13{}", "01Z-00-DX{}", "{}-{}"),
        case_id="{n}",
        concepts=("cell nucleus",),
        colour=True,
        together=True,
        spoil=cut,
        spoilt="unreadable",
    ),
    "BreastCancerCells": Native(
        image="Images/{n}_ccd.tif",
        labels={"Masks/{n}.TIF": binary()},
        names=pairs("ytma10_01070{}", "benign{}"),
        case_id="{n}",
        concepts=("cell nucleus",),
        colour=True,
        together=True,
    ),
    "BCSS": Native(
        image="0_Public-data-Amgad2019_0.25MPP/rgbs_colorNormalized/{n}.png",
        labels={
            "0_Public-data-Amgad2019_0.25MPP/masks/{n}.png": values(
                {"tumor tissue": 1, "stroma": 2, "lymphocytic infiltrate": 3, "necrosis or debris": 4}, background=21
            )
        },
        names=pairs("TCGA-A1-A0S{}", "DX1_xmin{}_ymin25055_MPP-0.2500", "{}-{}"),
        case_id="{n}",
        concepts=("tumor tissue", "stroma", "lymphocytic infiltrate", "necrosis or debris"),
        colour=True,
        together=True,
    ),
    "PCMMD": Native(
        image="PCMMD Plasma Cells for Multiple Myeloma Diagnosis/data/segmentation/plasma cells/images/{n}.jpg",
        labels={
            "PCMMD Plasma Cells for Multiple Myeloma Diagnosis/data/segmentation/plasma cells/masks/{n}.json": labelme(
                {"plasma cell": "plasma_cell"}
            )
        },
        names=numbered("{}"),
        case_id="plasma_cells_{n}",
        concepts=("plasma cell",),
        colour=True,
        spoil=cut,
        spoilt="unreadable",
    ),
    "IntraretinalCystoidFluid": Native(
        image="2021-training-data-ZA/2021-training-data-ZA/{n}/images/{n}.png",
        labels={"2021-training-data-ZA/2021-training-data-ZA/{n}/masks/{n}.png": binary()},
        names=numbered("{}DME_F"),
        case_id="{n}",
        concepts=("intraretinal cystoid fluid",),
        beside={"2021-training-data-ZA/2021-training-data-ZA/1DME_F/masks/MASK-DME511.png": b"\x89PNG"},
    ),
    "PAPILA": Native(
        image="PapilaDB/FundusImages/{n}.jpg",
        labels={
            PAPILA + "_disc_exp1.txt": contour("optic disc"),
            PAPILA + "_cup_exp1.txt": contour("optic cup"),
            PAPILA + "_disc_exp2.txt": contour("optic disc"),
            PAPILA + "_cup_exp2.txt": contour("optic cup"),
        },
        names=lambda case: {"n": f"RET{max(case, 1):03d}{'OS' if case == 1 else 'OD'}"},
        case_id="{n}",
        concepts=("optic disc", "optic cup"),
        colour=True,
        together=True,
        spoil=lambda path: path.write_text("no number\n", encoding="utf-8"),
        spoilt="unreadable",
        beside={"PapilaDB/ClinicalData/patient_data_od.xlsx": b"PK"},
    ),
    "COph100": Native(
        image="COph100/{owner}_S01/{owner}_F_{k}.jpg",
        labels={"COph100/{owner}_S01/{owner}_F_{k}_mask.png": binary()},
        names=pairs("{:03d}", "OD_{}"),
        case_id="{owner}_S01_{owner}_F_{k}",
        concepts=("retinal vessel",),
        colour=True,
        together=True,
    ),
    "DRIVE": Native(
        image="{part}/images/{n}_{part}.tif",
        labels={
            "{part}/1st_manual/{n}_manual1.gif": binary(),
            "{part}/2nd_manual/{n}_manual2.gif": binary(),
        },
        names=of(("training", "training", "test"), "{:02d}"),
        case_id="{n}",
        concepts=("retinal vessel",),
        colour=True,
        splits=("development", "development", "test"),
        beside={"training/mask/01_training_mask.gif": b"GIF89a"},
    ),
    "RAVIR": Native(
        image="RAVIR Dataset/train/training_images/{n}.png",
        labels={"RAVIR Dataset/train/training_masks/{n}.png": values({"retinal artery": 128, "retinal vein": 255})},
        names=numbered("IR_Case_{:03d}"),
        case_id="{n}",
        concepts=("retinal artery", "retinal vein"),
        beside={"RAVIR Dataset/test/IR_Case_099.png": b"\x89PNG"},
    ),
    "ISIC2018": Native(
        image="ISIC2018_Task1-2_{part}_Input/{n}.jpg",
        labels={"ISIC2018_Task1_{part}_GroundTruth/{n}_segmentation.png": binary()},
        names=of(("Training", "Validation", "Test"), "ISIC_{:07d}"),
        case_id="{n}",
        concepts=("skin lesion",),
        colour=True,
        splits=("train", "val", "test"),
        beside={
            "ISIC2018_Task1-2_Training_Input/ATTRIBUTION.txt": b"CC",
            "ISIC2018_Task1-2_Training_Input/LICENSE.txt": b"CC",
        },
    ),
    "TN3K": Native(
        image="Thyroid Dataset/tn3k/{part}-image/{n}.jpg",
        labels={"Thyroid Dataset/tn3k/{part}-mask/{n}.jpg": binary()},
        names=of(("trainval", "trainval", "test"), "{:04d}"),
        case_id="{part}_{n}",
        concepts=("thyroid nodule",),
        splits=("development", "development", "test"),
        beside={"Thyroid Dataset/tn3k/tn3k-trainval-fold0.json": b"{}"},
    ),
    "HC18": Native(
        image="training_set/{n}.png",
        labels={"training_set/{n}_Annotation.png": outline},
        names=lambda case: {"n": "000_HC" if case == 0 else f"{case - 1:03d}_{'2' if case == 1 else ''}HC"},
        case_id="{n}",
        concepts=("fetal head",),
        together=True,
        beside={"test_set/900_HC.png": b"\x89PNG", "training_set_pixel_size_and_HC.csv": b"filename\n"},
    ),
    "CVC-ClinicDB": Native(
        image="PNG/Original/{n}.png",
        labels={"PNG/Ground Truth/{n}.png": binary()},
        names=numbered("{}"),
        case_id="PNG_{n}",
        concepts=("polyp",),
        colour=True,
        beside={"metadata.csv": b"frame_id,sequence_id\n"},
    ),
    "ETIS-Larib": Native(
        image="images/{n}.png",
        labels={"masks/{n}.png": binary()},
        names=numbered("{}"),
        case_id="{n}",
        concepts=("polyp",),
        colour=True,
    ),
    "PH2": Native(
        image="PH2Dataset/PH2 Dataset images/{n}/{n}_Dermoscopic_Image/{n}.bmp",
        labels={"PH2Dataset/PH2 Dataset images/{n}/{n}_lesion/{n}_lesion.bmp": binary()},
        names=numbered("IMD{:03d}"),
        case_id="{n}",
        concepts=("skin lesion",),
        colour=True,
        beside={
            "PH2Dataset/PH2 Dataset images/IMD001/IMD001_roi/IMD001_R1_Label4.bmp": b"BM",
            "PH2Dataset/PH2_dataset.txt": b"||",
        },
    ),
    "STARE": Native(
        image="images/{n}.ppm.gz",
        labels={"labels-ah/{n}.ah.ppm.gz": binary(rgb=True), "labels-vk/{n}.vk.ppm.gz": binary(rgb=True)},
        names=numbered("im{:04d}"),
        case_id="{n}",
        concepts=("retinal vessel",),
        colour=True,
    ),
    "DDTI": Native(
        image="DDTI dataset/DDTI/1_or_data/image/{n}.PNG",
        labels={"DDTI dataset/DDTI/1_or_data/mask/{n}.PNG": binary()},
        names=numbered("{}"),
        case_id="{n}",
        concepts=("thyroid nodule",),
        beside={"DDTI dataset/DDTI/2_preprocessed_data/image/1.PNG": b"\x89PNG"},
    ),
    "TG3K": Native(
        image="Thyroid Dataset/tg3k/thyroid-image/{n}.jpg",
        labels={"Thyroid Dataset/tg3k/thyroid-mask/{n}.jpg": binary()},
        names=numbered("{:04d}"),
        case_id="{n}",
        concepts=("thyroid gland",),
        beside={"Thyroid Dataset/tg3k/tg3k-trainval.json": b"{}"},
    ),
    "CoNSeP": Native(
        image="CoNSeP/{part}/Images/{n}.png",
        labels={"CoNSeP/{part}/Labels/{n}.mat": binary(7, key="inst_map", dtype=np.float64)},
        names=of(("Train", "Train", "Test"), "case_{}"),
        case_id="{n}",
        concepts=("cell nucleus",),
        colour=True,
        splits=("development", "development", "test"),
        beside={"CoNSeP/Train/Overlay/case_1.png": b"\x89PNG"},
    ),
}

__all__ = ["PICTURES", "save"]
