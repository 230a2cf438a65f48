"""Sixty canaries planted in a DICOM object: what a search of any output must never find."""

from __future__ import annotations

from pydicom.dataset import Dataset
from pydicom.uid import UID

MARK = "CANARY"
UID_MARK = "1.2.826.0.1.3680043.8.498.77001"
_TEXT = [
    "PatientID", "IssuerOfPatientID", "OtherPatientIDs", "PatientAddress", "PatientTelephoneNumbers",
    "MedicalRecordLocator", "MilitaryRank", "BranchOfService", "Occupation", "EthnicGroup", "PatientComments",
    "AdditionalPatientHistory", "PatientReligiousPreference", "AccessionNumber", "StudyID", "StudyDescription",
    "SeriesDescription", "ProtocolName", "InstitutionName", "InstitutionAddress", "InstitutionalDepartmentName",
    "StationName", "ReferringPhysicianAddress", "AdmittingDiagnosesDescription", "DeviceSerialNumber",
    "RequestingService", "RequestedProcedureDescription", "AdmissionID", "ImageComments", "PatientState",
    "SpecialNeeds", "DerivationDescription", "ContrastBolusAgent", "Allergies", "MedicalAlerts", "PerformedLocation",
]  # fmt: skip
_NAMES = [
    "PatientName", "OtherPatientNames", "PatientBirthName", "PatientMotherBirthName", "ReferringPhysicianName",
    "PerformingPhysicianName", "OperatorsName", "NameOfPhysiciansReadingStudy", "RequestingPhysician",
]  # fmt: skip
_DATES = ["PatientBirthDate", "StudyDate", "SeriesDate", "ContentDate", "AcquisitionDate", "AdmittingDate"]
COUNT = len(_TEXT) + len(_NAMES) + len(_DATES) + 5 + 4


def plant(made: Dataset, uids: bool = True) -> list[str]:
    """Plant them; return what must not be found. `uids`: also in the instance's and series' names."""
    planted = []
    for number, keyword in enumerate([k for k in _TEXT if _known(k)], start=1):
        word = f"{MARK}{number:02d}X"
        setattr(made, keyword, word)
        planted.append(word)
    for number, keyword in enumerate(_NAMES, start=60):
        setattr(made, keyword, f"{MARK}{number}X^Jane Q")
        planted.append(f"{MARK}{number}X")
    for number, keyword in enumerate(_DATES):
        setattr(made, keyword, f"1847031{number}")
        planted.append(f"1847031{number}")
    block = made.private_block(0x0009, f"{MARK}80X", create=True)
    block.add_new(0x01, "LO", f"{MARK}81X")
    block.add_new(0x02, "OB", f"{MARK}82X ".encode())
    nested, deeper = Dataset(), Dataset()
    nested.PatientName, nested.RequestedProcedureDescription = f"{MARK}83X", f"{MARK}84X"
    deeper.add_new((0x0011, 0x0010), "LO", f"{MARK}85X")
    deeper.add_new((0x0011, 0x1001), "UT", f"{MARK}86X")
    nested.ReferencedStudySequence = [deeper]
    made.RequestAttributesSequence = [nested]
    inside = Dataset()
    inside.ImageComments, inside.PatientName = f"{MARK}87X", f"{MARK}88X^B"
    made.SourceImageSequence = [inside]
    made.file_meta.SourceApplicationEntityTitle = f"{MARK}89X"
    planted += [f"{MARK}{number}X" for number in range(80, 90)]
    if uids:
        made.StudyInstanceUID = UID(f"{UID_MARK}.1")
        planted.append(UID_MARK)
    return planted


def _known(keyword: str) -> bool:
    from pydicom.datadict import tag_for_keyword

    return tag_for_keyword(keyword) is not None
