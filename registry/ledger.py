"""The ledger: who promoted what, when, why, by which verdict. Append-only and hash-chained.

MLflow's aliases keep no history, time or actor. Each row holds the hash of the row before, so that a row
changed, removed or moved breaks the chain at a place that can be named. The table lives in the database
of the registry (sqlite or PostgreSQL).
"""

from __future__ import annotations

import getpass
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError, OperationalError

from infra.errors import ServiceError
from infra.storage import digest_of

GENESIS = "0" * 64
_ATTEMPTS = 50

_METADATA = sa.MetaData()
_TABLE = sa.Table(
    "segfoundry_ledger",
    _METADATA,
    sa.Column("position", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("at", sa.String(40), nullable=False),
    sa.Column("actor", sa.String(256), nullable=False),
    sa.Column("action", sa.String(64), nullable=False),
    sa.Column("model", sa.String(256), nullable=False),
    sa.Column("version", sa.Integer),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("details", sa.Text, nullable=False),
    sa.Column("previous_hash", sa.String(64), nullable=False),
    sa.Column("hash", sa.String(64), nullable=False),
)
# A slip in a database shell should not rewrite history; a purpose can, and the chain then shows it.
_TRIGGERS = [
    sa.text(
        f"CREATE TRIGGER IF NOT EXISTS segfoundry_ledger_no_{verb.lower()} BEFORE {verb} ON segfoundry_ledger "
        "BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END"
    )
    for verb in ("UPDATE", "DELETE")
]


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


class Overtaken(ServiceError):
    """Another writer has appended since the caller looked: look again."""


class Ledger:
    """The ledger in the database at `url` (an SQLAlchemy URL)."""

    def __init__(self, url: str) -> None:
        self.url = url

    @cached_property
    def _engine(self) -> sa.Engine:
        # Writers wait for each other; MLflow writes to the same sqlite file.
        options = {"connect_args": {"timeout": 30}} if self.url.startswith("sqlite") else {}
        engine = sa.create_engine(self.url, **options)
        try:
            _METADATA.create_all(engine)
        except OperationalError as error:
            # Two processes may create the table at the same time; the loser finds it there.
            if not sa.inspect(engine).has_table(_TABLE.name):
                msg = f"the ledger's database cannot be opened ({error.orig}); check its address"
                raise ServiceError(msg) from error
        if engine.dialect.name == "sqlite":
            # Each time, not with the table: a kill between the two would leave a table without its guard.
            with engine.begin() as connection:
                for trigger in _TRIGGERS:
                    connection.execute(trigger)
        return engine

    def entries(self, model: str | None = None) -> list[Entry]:
        """All rows in order, or those of one model."""
        query = sa.select(_TABLE).order_by(_TABLE.c.position)
        if model is not None:
            query = query.where(_TABLE.c.model == model)
        with self._engine.connect() as connection:
            return [_entry(row) for row in connection.execute(query).mappings()]

    def head(self) -> Entry | None:
        """The newest row; None where there is none."""
        query = sa.select(_TABLE).order_by(_TABLE.c.position.desc()).limit(1)
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
                    connection.execute(_TABLE.insert().values(**_columns(entry)))
            except IntegrityError:
                continue
            return entry
        msg = f"the ledger could not be written in {_ATTEMPTS} attempts: too many writers at the same time; try again"
        raise ServiceError(msg)

    def verify(self) -> ChainCheck:
        """Prove the chain from the first row to the last, or name the first broken link."""
        entries = self.entries()
        previous = GENESIS
        for number, entry in enumerate(entries, start=1):
            if entry.position != number:
                problem = (
                    f"expected row {number}, found row {entry.position}: rows {number} to {entry.position - 1} removed"
                )
                return ChainCheck(False, len(entries), number, problem)
            if entry.previous_hash != previous:
                problem = f"row {number} follows {entry.previous_hash[:12]}, the row before it is {previous[:12]}"
                return ChainCheck(False, len(entries), number, problem)
            if entry.computed_hash() != entry.hash:
                problem = (
                    f"row {number} says {entry.hash[:12]}, its content is {entry.computed_hash()[:12]}: it was changed"
                )
                return ChainCheck(False, len(entries), number, problem)
            previous = entry.hash
        return ChainCheck(True, len(entries))


def default_actor() -> str:
    """The name of the user who runs this process."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "unknown"


def _entry(row: Mapping[Any, Any]) -> Entry:
    return Entry(**{**row, "details": json.loads(row["details"])})


def _columns(entry: Entry) -> dict[str, Any]:
    return {**asdict(entry), "details": json.dumps(entry.details, sort_keys=True, ensure_ascii=False)}
