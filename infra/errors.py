"""The one error tree.

Everything a user can cause derives from `SegfoundryError` and is shown as one message without a
traceback. A traceback is for bugs.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from infra.secrets import without_secrets


class SegfoundryError(Exception):
    """Base of every expected failure. `exit_code` is what the command line returns for it.

    Its text holds no secret of the machine, though it may quote an address or another library's error.
    """

    exit_code = 2

    def __str__(self) -> str:
        """The message, without secrets."""
        return without_secrets(super().__str__())


class UsageError(SegfoundryError):
    """Wrong use: an unknown dataset, verb, option or a bad value in `params.yaml`."""


class DataError(SegfoundryError):
    """Input as a whole cannot be used: a dataset folder is missing, a shard fails its hash."""


class CheckFailed(SegfoundryError):
    """The command ran and found a failure: a gate that blocks, a check that does not hold."""

    exit_code = 1


class ServiceError(SegfoundryError):
    """A service (Ray, Prefect, MLflow, storage) could not be started or reached."""


@dataclass(eq=False)
class CaseError(SegfoundryError):
    """One case cannot be used. Caught by the build, which writes it to quarantine and goes on.

    `reason` is a short stable code (`mask_size`, `unreadable`, `unknown_label`, …); `expected` and
    `found` are sentences for a person.
    """

    reason: str
    expected: str
    found: str
    dataset: str = ""
    case_id: str = ""
    file: str = ""
    fix: str = ""
    details: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        """One line that names dataset, case, file, expected, found and fix."""
        where = "/".join(part for part in (self.dataset, self.case_id) if part)
        file = self.file or "(no file)"
        text = f"{where or 'case'}: {self.reason}: {file}: expected {self.expected}, found {self.found}"
        return without_secrets(f"{text}. {self.fix}" if self.fix else text)

    def __reduce__(self) -> tuple[type[CaseError], tuple[Any, ...]]:
        """Survive pickling between Ray processes with all fields."""
        return (
            type(self),
            (self.reason, self.expected, self.found, self.dataset, self.case_id, self.file, self.fix, self.details),
        )


def causes(broken: BaseException) -> Iterator[BaseException]:
    """The error and what it came from."""
    seen: set[int] = set()
    each: BaseException | None = broken
    while each is not None and id(each) not in seen:
        seen.add(id(each))
        yield each
        each = each.__cause__ or each.__context__
