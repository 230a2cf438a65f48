"""De-identification: what may leave of a DICOM object, and texts in which nothing of a patient may stand.

`deidentify` follows the Basic Application Level Confidentiality Profile (PS3.15 annex E) from the safe side:
it keeps what is on a list of technical attributes and drops everything else, at every depth, so that an
attribute that no list foresaw does not leave. `secrets_of` and `scrub` keep what a file says about a patient
out of quarantine, logs and error texts, whatever a decoder quotes.
"""

from __future__ import annotations

import copy
import hashlib
import hmac
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian

from infra.errors import CaseError
from preprocessing.readers import DECODER_ERRORS
from preprocessing.readers.dicom_file import quiet, read_header
from preprocessing.splits import pseudonym

REMOVED = "[removed]"
# A UID as a file name or a text has it: at least six numbers between dots.
_UID_LIKE = re.compile(r"\d+(?:\.\d+){5,}")
_STANDARD_UID = "1.2.840.10008."  # names of classes and syntaxes, not of anything that happened
_TEXT = {"AE", "AS", "DA", "DT", "LO", "LT", "PN", "SH", "ST", "TM", "UC", "UI", "UN", "UR", "UT"}

# Values that are numbers, codes or pixels. Dates, names, ages, addresses and free text are none of these.
_KEPT_VR = {
    "AT", "CS", "DS", "FD", "FL", "IS", "OB", "OD", "OF", "OL", "OV", "OW", "SL", "SQ", "SS", "SV", "UL", "US", "UV",
}  # fmt: skip
# Groups of an image, its geometry, a segmentation, a structure set, and functional groups.
_KEPT_GROUPS = {0x0008, 0x0018, 0x0020, 0x0022, 0x0028, 0x0048, 0x0062, 0x0070, 0x3006, 0x5200, 0x7FE0}
_KEPT_TEXT = {
    "CodeMeaning", "CodeValue", "CodingSchemeDesignator", "CodingSchemeVersion", "LongCodeValue", "Manufacturer",
    "ManufacturerModelName", "RescaleType", "ROIName", "SegmentAlgorithmName", "SegmentLabel", "SoftwareVersions",
    "StructureSetLabel",
}  # fmt: skip
# Texts that say nothing about a patient, and whose words ("segment", "number") are in every message.
_TECHNICAL_TEXT = _KEPT_TEXT | {"DimensionDescriptionLabel", "TransferSyntaxUID"}
# Of a group that is kept, but about a person, an order or the hour; or pictures beside the picture.
_DROPPED = {
    "IconImageSequence", "OtherPatientIDsSequence", "PatientPrimaryLanguageCodeSequence", "ReferencedPatientSequence",
    "ReferencedPerformedProcedureStepSequence", "RequestAttributesSequence", "OriginalAttributesSequence",
    "ReferencedStudySequence", "ProcedureCodeSequence", "PerformedProtocolCodeSequence", "TimezoneOffsetFromUTC",
    "PhysiciansOfRecordIdentificationSequence", "OperatorIdentificationSequence", "ContributingEquipmentSequence",
    "InstitutionCodeSequence", "InstitutionalDepartmentTypeCodeSequence", "ReferringPhysicianIdentificationSequence",
    "PerformingPhysicianIdentificationSequence", "PhysiciansReadingStudyIdentificationSequence", "AccessionNumber",
}  # fmt: skip
# Type 2 attributes that every object must have: present and empty (action Z).
_EMPTIED = (
    "StudyDate", "StudyTime", "AccessionNumber", "ReferringPhysicianName", "PatientBirthDate", "PatientSex", "StudyID",
)  # fmt: skip
# Endings of files that a closed dataset may show; what else stands behind a dot may be a name or a UID.
_ENDINGS = {
    ".bmp", ".csv", ".dcm", ".gif", ".gz", ".h5", ".hdf5", ".hdr", ".ima", ".img", ".jpeg", ".jpg", ".json", ".mat",
    ".mha", ".mhd", ".nhdr", ".nii", ".npy", ".npz", ".nrrd", ".pgm", ".png", ".ppm", ".raw", ".seg", ".svs", ".tif",
    ".tiff", ".tsv", ".txt", ".webp", ".xml", ".yaml", ".zip", ".zraw",
}  # fmt: skip


def deidentify(dataset: Dataset, domain: str, key: bytes) -> Dataset:
    """A copy of a DICOM object that may leave: no name, id, date, private element, or UID of anything that happened.

    The patient and every UID get pseudonyms by `key` that are equal for equal `domain`, so that objects that
    belong together still do. Overlays, icons and signatures are dropped. Pixels are not looked at:
    `burned_in.look` is about them.
    """
    patient = str(dataset.get("PatientID") or dataset.get("PatientName") or dataset.get("SOPInstanceUID") or "")
    kept = _kept(dataset, domain, key)
    for name in _EMPTIED:
        setattr(kept, name, "")
    kept.PatientID = kept.PatientName = pseudonym(domain, patient, key, "p")
    for name, dummy in (("ContentDate", "19000101"), ("ContentTime", "000000"), ("DeviceSerialNumber", "0")):
        if name in dataset:
            setattr(kept, name, dummy)  # type 1 in some objects, so not empty (action D)
    kept.PatientIdentityRemoved, kept.LongitudinalTemporalInformationModified = "YES", "REMOVED"
    kept.DeidentificationMethod = "Segfoundry, PS3.15 basic profile by allowed attributes"
    code = Dataset()
    code.CodeValue, code.CodingSchemeDesignator = "113100", "DCM"
    code.CodeMeaning = "Basic Application Confidentiality Profile"
    kept.DeidentificationMethodCodeSequence = [code]
    kept.file_meta = FileMetaDataset()
    old_meta = getattr(dataset, "file_meta", FileMetaDataset())
    kept.file_meta.TransferSyntaxUID = old_meta.get("TransferSyntaxUID", ExplicitVRLittleEndian)
    kept.file_meta.MediaStorageSOPClassUID = kept.get("SOPClassUID", "")
    kept.file_meta.MediaStorageSOPInstanceUID = kept.get("SOPInstanceUID", "")
    return kept


def new_uid(uid: str, domain: str, key: bytes) -> str:
    """The UID that stands for `uid`: a name-based UUID below 2.25 (PS3.5 B.2), by keyed hash; standard ones stay."""
    if uid.startswith(_STANDARD_UID):
        return uid
    digest = hmac.new(key, f"{domain}\0uid\0{uid}".encode(), hashlib.sha256).digest()
    return f"2.25.{int.from_bytes(digest[:16], 'big')}"


def hide_uids(name: str, domain: str, key: bytes) -> str:
    """A file's or case's name in which UIDs are pseudonyms: many archives name files by their instance."""
    return _UID_LIKE.sub(lambda found: pseudonym(domain, found.group(), key, "u"), name)


def safe_ending(file: str) -> str:
    """The ending of a file's name where it is one of a format, else nothing."""
    ending = Path(file).suffix
    return ending if ending.lower() in _ENDINGS else ""


def secrets_of(paths: Iterable[Path]) -> frozenset[str]:
    """What the headers of DICOM files say about a patient or an examination, as texts to look for.

    Every text, name, date and UID at every depth, private elements too, and the words of each. Files that
    cannot be read say nothing.
    """
    found: set[str] = set()
    for path in paths:
        try:
            header = read_header(path)
        except (CaseError, *DECODER_ERRORS):
            continue
        with quiet():
            for part in (getattr(header, "file_meta", Dataset()), header):
                found.update(_said(part))
    return frozenset(found)


def _said(dataset: Any) -> Iterator[str]:
    """The texts of a dataset and its items; an element that does not parse says nothing, the next one may."""
    for tag in list(dataset.keys()):
        try:
            element = dataset[tag]
            if element.VR == "SQ":
                for item in element.value:
                    yield from _said(item)
            elif element.keyword in _TECHNICAL_TEXT:
                continue
            elif element.VR in _TEXT or element.tag.is_private or not _is_what_it_says(element):
                yield from list(_texts(element.VR, element.value))
        except DECODER_ERRORS:
            continue


def scrub(text: str, secrets: Iterable[str], closed: bool) -> str:
    """`text` without any of `secrets` and without UIDs; where `closed`, without anything that it quotes."""
    for secret in sorted(secrets, key=len, reverse=True):
        if secret.lower() in text.lower():
            text = re.sub(rf"(?<![A-Za-z0-9]){re.escape(secret)}(?![A-Za-z0-9])", REMOVED, text, flags=re.IGNORECASE)
    text = _UID_LIKE.sub(lambda uid: _hidden(uid.group()), text)
    return re.sub(r"'[^']*'|\"[^\"]*\"|\bb'[^']*'", f"'{REMOVED}'", text) if closed else text


def _hidden(uid: str) -> str:
    return uid if uid.startswith(_STANDARD_UID) else REMOVED


def _texts(vr: str, value: Any) -> Iterator[str]:
    """The texts in a value: itself, and its words where they are long enough not to be everybody's."""
    if isinstance(value, bytes):
        value = value.decode("latin-1", "ignore") if len(value) <= 4096 else ""
    for part in value if isinstance(value, list | tuple) or hasattr(value, "append") else [value]:
        if part is None or isinstance(part, Dataset):
            continue
        text = str(part).strip(" \0")
        if text.startswith(_STANDARD_UID):
            continue
        least = 3 if vr == "PN" else 5
        yield from (text,) if len(text) > 3 else ()
        yield from (word for word in re.split(r"[\s^=,;\\]+", text) if len(word) >= least)


def _kept(dataset: Dataset, domain: str, key: bytes) -> Dataset:
    """The allowed elements of a dataset, items of sequences too."""
    kept = Dataset()
    for element in dataset:
        if element.tag.is_private or element.keyword in _DROPPED or not element.keyword:
            continue
        if element.tag.group not in _KEPT_GROUPS and not element.keyword.startswith("Code"):
            continue
        if element.VR == "UI":
            changed = copy.deepcopy(element)
            if element.value:
                many = [element.value] if isinstance(element.value, str) else list(element.value)
                uids = [new_uid(str(uid), domain, key) for uid in many]
                changed.value = uids if len(uids) > 1 else uids[0]
            kept[element.tag] = changed
        elif element.VR == "SQ":
            items = [_kept(item, domain, key) for item in element.value]
            kept.add_new(element.tag, "SQ", items)
        elif (_KEPT_VR.issuperset(element.VR.split(" or ")) or element.keyword in _KEPT_TEXT) and _is_what_it_says(
            element
        ):
            kept[element.tag] = copy.deepcopy(element)
    return kept


def _is_what_it_says(element: Any) -> bool:
    """Whether a number is a number and a code a code: a careless export writes names where numbers belong."""
    if element.VR in ("DS", "IS"):
        try:
            [float(part) for part in ([element.value] if element.VM <= 1 else element.value) if part not in (None, "")]
        except (TypeError, ValueError):
            return False
    if element.VR == "CS":
        values = [element.value] if element.VM <= 1 else element.value
        return all(re.fullmatch(r"[A-Z0-9_ ]{0,16}", str(part or "")) for part in values)
    return True
