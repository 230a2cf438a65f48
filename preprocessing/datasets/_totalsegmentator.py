"""TotalSegmentator's structures and their concepts, which its CT, MR and test data share.

Source https://github.com/wasserth/TotalSegmentator (0e65a44), totalsegmentator/map_to_binary.py: the classes
`total` and `total_mr` in the order of their label ids, which count from 1.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from infra.errors import DataError
from preprocessing.cards import ByFile, ByValue, DatasetCard, RawCase
from preprocessing.pairing import find_cases

CT = (
    "spleen", "kidney_right", "kidney_left", "gallbladder", "liver", "stomach", "pancreas", "adrenal_gland_right",
    "adrenal_gland_left", "lung_upper_lobe_left", "lung_lower_lobe_left", "lung_upper_lobe_right",
    "lung_middle_lobe_right", "lung_lower_lobe_right", "esophagus", "trachea", "thyroid_gland", "small_bowel",
    "duodenum", "colon", "urinary_bladder", "prostate", "kidney_cyst_left", "kidney_cyst_right", "sacrum",
    "vertebrae_S1", "vertebrae_L5", "vertebrae_L4", "vertebrae_L3", "vertebrae_L2", "vertebrae_L1",
    "vertebrae_T12", "vertebrae_T11", "vertebrae_T10", "vertebrae_T9", "vertebrae_T8", "vertebrae_T7",
    "vertebrae_T6", "vertebrae_T5", "vertebrae_T4", "vertebrae_T3", "vertebrae_T2", "vertebrae_T1",
    "vertebrae_C7", "vertebrae_C6", "vertebrae_C5", "vertebrae_C4", "vertebrae_C3", "vertebrae_C2",
    "vertebrae_C1", "heart", "aorta", "pulmonary_vein", "brachiocephalic_trunk", "subclavian_artery_right",
    "subclavian_artery_left", "common_carotid_artery_right", "common_carotid_artery_left",
    "brachiocephalic_vein_left", "brachiocephalic_vein_right", "atrial_appendage_left", "superior_vena_cava",
    "inferior_vena_cava", "portal_vein_and_splenic_vein", "iliac_artery_left", "iliac_artery_right",
    "iliac_vena_left", "iliac_vena_right", "humerus_left", "humerus_right", "scapula_left", "scapula_right",
    "clavicula_left", "clavicula_right", "femur_left", "femur_right", "hip_left", "hip_right", "spinal_cord",
    "gluteus_maximus_left", "gluteus_maximus_right", "gluteus_medius_left", "gluteus_medius_right",
    "gluteus_minimus_left", "gluteus_minimus_right", "autochthon_left", "autochthon_right", "iliopsoas_left",
    "iliopsoas_right", "brain", "skull", "rib_left_1", "rib_left_2", "rib_left_3", "rib_left_4", "rib_left_5",
    "rib_left_6", "rib_left_7", "rib_left_8", "rib_left_9", "rib_left_10", "rib_left_11", "rib_left_12",
    "rib_right_1", "rib_right_2", "rib_right_3", "rib_right_4", "rib_right_5", "rib_right_6", "rib_right_7",
    "rib_right_8", "rib_right_9", "rib_right_10", "rib_right_11", "rib_right_12", "sternum", "costal_cartilages",
)  # fmt: skip
MR = (
    "spleen", "kidney_right", "kidney_left", "gallbladder", "liver", "stomach", "pancreas", "adrenal_gland_right",
    "adrenal_gland_left", "lung_left", "lung_right", "esophagus", "small_bowel", "duodenum", "colon",
    "urinary_bladder", "prostate", "sacrum", "vertebrae", "intervertebral_discs", "spinal_cord", "heart", "aorta",
    "inferior_vena_cava", "portal_vein_and_splenic_vein", "iliac_artery_left", "iliac_artery_right",
    "iliac_vena_left", "iliac_vena_right", "humerus_left", "humerus_right", "scapula_left", "scapula_right",
    "clavicula_left", "clavicula_right", "femur_left", "femur_right", "hip_left", "hip_right",
    "gluteus_maximus_left", "gluteus_maximus_right", "gluteus_medius_left", "gluteus_medius_right",
    "gluteus_minimus_left", "gluteus_minimus_right", "autochthon_left", "autochthon_right", "iliopsoas_left",
    "iliopsoas_right", "brain",
)  # fmt: skip
CT_UNIONS = (
    "kidney", "adrenal gland", "lung", "left lung", "right lung", "kidney cyst", "vertebra", "rib",
    "subclavian artery", "common carotid artery", "brachiocephalic vein", "iliac artery", "iliac vein", "humerus",
    "scapula", "clavicle", "femur", "hip bone", "gluteus maximus muscle", "gluteus medius muscle",
    "gluteus minimus muscle", "autochthonous back muscle", "iliopsoas muscle",
)  # fmt: skip
MR_UNIONS = (
    "kidney", "adrenal gland", "lung", "iliac artery", "iliac vein", "humerus", "scapula", "clavicle", "femur",
    "hip bone", "gluteus maximus muscle", "gluteus medius muscle", "gluteus minimus muscle",
    "autochthonous back muscle", "iliopsoas muscle",
)  # fmt: skip

_WORDS = {
    "autochthon": "autochthonous back muscle", "clavicula": "clavicle", "hip": "hip bone", "iliac_vena": "iliac vein",
    "atrial_appendage": "atrial appendage", "heart_atrium": "atrium", "gluteus_maximus": "gluteus maximus muscle",
    "gluteus_medius": "gluteus medius muscle", "gluteus_minimus": "gluteus minimus muscle",
    "iliopsoas": "iliopsoas muscle", "portal_vein_and_splenic_vein": "portal and splenic vein",
    "heart_myocardium": "myocardium", "costal_cartilages": "costal cartilage", "vertebrae": "vertebra",
    "intervertebral_discs": "intervertebral disc", "heart_ventricle_left": "left ventricle blood pool",
    "heart_ventricle_right": "right ventricle blood pool",
}  # fmt: skip


def concept_of(structure: str) -> str:
    """The concept of a structure's name: `lung_upper_lobe_left` is the left upper lung lobe."""
    if structure in _WORDS:
        return _WORDS[structure]
    words = structure.lower().split("_")
    if words[0] == "vertebrae":
        return f"{words[1]} vertebra"
    if words[0] == "rib":
        return f"{words[1]} rib {words[2]}"
    if words[-1] not in ("left", "right"):
        return " ".join(words)
    side, rest = words[-1], "_".join(words[:-1])
    if rest.startswith("lung_") and rest.endswith("_lobe"):
        return f"{side} {words[1]} lung lobe"
    return f"{side} {_WORDS.get(rest, rest.replace('_', ' '))}"


def by_file(structures: tuple[str, ...]) -> ByFile:
    """One binary file a structure."""
    return ByFile({structure.lower(): concept_of(structure) for structure in structures})


def by_value(structures: tuple[str, ...]) -> ByValue:
    """One file of label ids."""
    return ByValue({number: concept_of(structure) for number, structure in enumerate(structures, start=1)})


def cases_with_splits(card: DatasetCard, root: Path) -> Iterator[RawCase]:
    """The cases of a card with the official split of `meta.csv` (columns image_id, split; semicolons), where it is."""
    split = _splits(root)
    for case in find_cases(card, root):
        hint = card.official_split.get(split.get(case.case_id, ""), "")
        yield replace(case, split=hint) if hint else case


def _splits(root: Path) -> dict[str, str]:
    found = sorted(root.rglob("meta.csv"))
    if not found:
        return {}
    try:
        with found[0].open(encoding="utf-8-sig", newline="") as handle:
            return {str(row["image_id"]): str(row["split"]) for row in csv.DictReader(handle, delimiter=";")}
    except (KeyError, UnicodeDecodeError, csv.Error) as error:
        msg = f"{found[0].name}: expected a table with the columns image_id and split, found {error}"
        raise DataError(msg) from error
