"""One build: what all its steps share, and how its cases are named and placed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from preprocessing import names
from preprocessing.cards import DatasetCard, RawCase
from preprocessing.splits import pseudonym, split_of

Refused = tuple[RawCase, dict[str, str]]  # a case and its row of the quarantine


@dataclass(frozen=True)
class Job:
    """What all steps of one build share."""

    card: DatasetCard
    params: dict[str, Any]
    key: bytes
    recipe: str


def place(job: Job, case: RawCase) -> dict[str, str]:
    """Group and split of a case."""
    splits = job.params["splits"]
    domain = job.card.domain
    hint = "test" if job.card.evaluation_only else case.split  # all of an external set is a test set
    split = split_of(domain, case.group, str(splits["key"]), float(splits["val"]), float(splits["test"]), hint)
    return {"group_id": pseudonym(domain, case.group, job.key), "split": split}


def shown_name(job: Job, case_id: str) -> str:
    """A case's name as written."""
    return names.shown_case(job.card, case_id, job.key)


def shown_file(job: Job, file: str) -> str:
    """A file's name as written."""
    return names.shown_file(job.card, file, job.key)
