"""The ledger: who promoted what, when, why, by which verdict. Append-only and hash-chained.

MLflow's aliases keep no history, time or actor. Each row holds the hash of the row before, so that a row
changed, removed or moved breaks the chain at a place that can be named. The table lives in the database
of the registry (sqlite or PostgreSQL).
"""

from __future__ import annotations

import getpass
import json
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError

from infra.errors import ServiceError
from infra.storage import digest_of
from registry.ledger_table import TABLE, exclusive, open_database

GENESIS = "0" * 64
_ATTEMPTS = 50


@dataclass(frozen=True)
class Entry:
    """One row. `details` is JSON: verdicts, digests, what the aliases become."""

    position: int
    at: str
    actor: str
    action: str
    model: str
    version: int | None
    reason: str
    details: dict[str, Any] = field(default_factory=dict)
    previous_hash: str = GENESIS
    hash: str = ""

    def computed_hash(self) -> str:
        """The hash that this row must have."""
        return digest_of({name: value for name, value in asdict(self).items() if name != "hash"})


@dataclass(frozen=True)
class ChainCheck:
    """Whether the chain holds; where not, at which position and why."""

    ok: bool
    entries: int
    position: int | None = None
    problem: str = ""
    head: str = ""  # hash of the newest row: noted down elsewhere, it shows whether rows were cut off


class Overtaken(ServiceError):
    """Another writer has appended since the caller looked: look again."""


class Ledger:
    """The ledger in the database at `url` (an SQLAlchemy URL)."""

    def __init__(self, url: str) -> None:
        self.url = url

    @cached_property
    def _engine(self) -> sa.Engine:
        return open_database(self.url)

    def exclusive(self) -> AbstractContextManager[None]:
        """One at a time over all processes for the block: what reads, decides and then appends."""
        return exclusive(self._engine)

    def entries(self, model: str | None = None) -> list[Entry]:
        """All rows in order, or those of one model."""
        query = sa.select(TABLE).order_by(TABLE.c.position)
        if model is not None:
            query = query.where(TABLE.c.model == model)
        with self._engine.connect() as connection:
            return [_entry(row) for row in connection.execute(query).mappings()]

    def head(self) -> Entry | None:
        """The newest row; None where there is none."""
        query = sa.select(TABLE).order_by(TABLE.c.position.desc()).limit(1)
        with self._engine.connect() as connection:
            row = connection.execute(query).mappings().first()
        return _entry(row) if row is not None else None

    def append(
        self,
        action: str,
        *,
        model: str,
        version: int | None,
        actor: str,
        reason: str,
        details: dict[str, Any] | None = None,
        after: int | None = None,
    ) -> Entry:
        """Append a row and return it. Writers at the same time get positions one after the other.

        With `after`, the row must follow the row at that position (0: must be the first): Overtaken where
        somebody else was first.
        """
        for _ in range(_ATTEMPTS):
            head = self.head()
            position = head.position if head else 0
            if after is not None and position != after:
                msg = f"expected to follow ledger row {after}, found row {position}: somebody else was first"
                raise Overtaken(msg)
            row = Entry(
                position=position + 1,
                at=datetime.now(UTC).isoformat(timespec="milliseconds"),
                actor=actor,
                action=action,
                model=model,
                version=version,
                reason=reason,
                # as it will be read back: tuples become lists
                details=json.loads(json.dumps(details or {})),
                previous_hash=head.hash if head else GENESIS,
            )
            entry = Entry(**{**asdict(row), "hash": row.computed_hash()})
            try:
                with self._engine.begin() as connection:
                    connection.execute(TABLE.insert().values(**_columns(entry)))
            except IntegrityError:
                continue
            return entry
        msg = f"the ledger could not be written in {_ATTEMPTS} attempts: too many writers at the same time; try again"
        raise ServiceError(msg)

    def verify(self, head: str = "") -> ChainCheck:
        """Prove the chain from the first row to the last, or name the first broken link.

        `head` is the hash of a row that somebody noted down: rows cut off at the end leave a chain that holds, and
        only what is known from outside shows that they were there.
        """
        entries = self.entries()
        for position, problem in _broken_links(entries):
            return ChainCheck(False, len(entries), position, problem)
        newest = entries[-1].hash if entries else GENESIS
        if head and head not in (GENESIS, *(entry.hash for entry in entries)):
            problem = (
                f"no row has the noted hash {head[:12]}; the newest of {len(entries)} rows is {newest[:12]}: "
                "rows were cut off or rewritten"
            )
            return ChainCheck(False, len(entries), len(entries) + 1, problem, newest)
        return ChainCheck(True, len(entries), head=newest)


def _broken_links(entries: list[Entry]) -> Iterator[tuple[int, str]]:
    """Position and problem of each row that does not follow from the one before it."""
    previous = GENESIS
    for number, entry in enumerate(entries, start=1):
        if entry.position != number:
            yield (
                number,
                f"expected row {number}, found row {entry.position}: {_gone(number, entry.position - 1)} removed",
            )
        if entry.previous_hash != previous:
            yield number, f"row {number} follows {entry.previous_hash[:12]}, the row before it is {previous[:12]}"
        if entry.computed_hash() != entry.hash:
            found = entry.computed_hash()[:12]
            yield number, f"row {number} says {entry.hash[:12]}, its content is {found}: it was changed"
        previous = entry.hash


def _gone(first: int, last: int) -> str:
    return f"row {first} was" if first == last else f"rows {first} to {last} were"


def default_actor() -> str:
    """The name of the user who runs this process."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "unknown"


def _entry(row: Mapping[Any, Any]) -> Entry:
    try:
        details = json.loads(row["details"])
    except json.JSONDecodeError:  # somebody wrote into the table: the hash will not fit
        details = {"unreadable": row["details"]}
    return Entry(**{**row, "details": details})


def _columns(entry: Entry) -> dict[str, Any]:
    return {**asdict(entry), "details": json.dumps(entry.details, sort_keys=True, ensure_ascii=False)}
