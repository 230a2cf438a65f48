"""The ledger's table: made once, guarded by the database itself, and a lock that promotions take in turn.

The guard refuses UPDATE, DELETE and TRUNCATE, so that a slip in a database shell does not rewrite history. Whoever
owns the database can remove it; the chain then shows what was done.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError, OperationalError

from infra.errors import ServiceError, UsageError

_METADATA = sa.MetaData()
TABLE = sa.Table(
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
_LOCK = 0x5E6F0D71  # number of PostgreSQL's advisory lock: ours alone by convention
_LOCK_WAIT_S = 120.0
_POLL_S = 0.02

_SQLITE_GUARD = [
    f"CREATE TRIGGER IF NOT EXISTS segfoundry_ledger_no_{verb.lower()} BEFORE {verb} ON segfoundry_ledger "
    "BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END"
    for verb in ("UPDATE", "DELETE")
] + [
    # INSERT OR REPLACE deletes without asking the trigger for DELETE.
    "CREATE TRIGGER IF NOT EXISTS segfoundry_ledger_no_replace BEFORE INSERT ON segfoundry_ledger "
    "WHEN EXISTS (SELECT 1 FROM segfoundry_ledger WHERE position = NEW.position) "
    "BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END"
]
_POSTGRES_GUARD = [
    "CREATE OR REPLACE FUNCTION segfoundry_ledger_refuse() RETURNS trigger LANGUAGE plpgsql AS "
    "$$ BEGIN RAISE EXCEPTION 'the ledger is append-only'; END $$",
    "DROP TRIGGER IF EXISTS segfoundry_ledger_append_only ON segfoundry_ledger",
    "CREATE TRIGGER segfoundry_ledger_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON segfoundry_ledger "
    "FOR EACH STATEMENT EXECUTE FUNCTION segfoundry_ledger_refuse()",
]
_POSTGRES_GUARDED = "SELECT 1 FROM pg_trigger WHERE tgname = 'segfoundry_ledger_append_only' AND tgenabled <> 'D'"


def open_database(url: str) -> sa.Engine:
    """The engine of the database at `url`, with the table and its guard in place.

    Raises UsageError for a kind of database that the ledger has no guard and lock for, ServiceError where it cannot
    be opened.
    """
    kind = sa.make_url(url).get_backend_name()
    if kind not in ("sqlite", "postgresql"):
        msg = f"the ledger: expected a database of kind sqlite or postgresql, found {kind}; set SEGFOUNDRY_LEDGER_URL"
        raise UsageError(msg)
    # Writers wait for each other; MLflow writes to the same sqlite file. A server may have closed an idle connection.
    engine = sa.create_engine(
        url, **({"connect_args": {"timeout": 30}} if kind == "sqlite" else {"pool_pre_ping": True})
    )
    try:
        _prepare_sqlite(engine) if kind == "sqlite" else _prepare_postgres(engine)
    except DBAPIError as error:
        msg = f"the ledger's database cannot be opened ({error.orig}); check its address and the rights of its user"
        raise ServiceError(msg) from error
    return engine


def _prepare_sqlite(engine: sa.Engine) -> None:
    try:
        _METADATA.create_all(engine)
    except OperationalError:
        # Two processes may create the table at the same time; the loser finds it there.
        if not sa.inspect(engine).has_table(TABLE.name):
            raise
    # Each time, not with the table: a kill between the two would leave a table without its guard.
    with engine.begin() as connection:
        for statement in _SQLITE_GUARD:
            connection.execute(sa.text(statement))


def _prepare_postgres(engine: sa.Engine) -> None:
    # One transaction, one process at a time: all of it is there or nothing.
    with engine.begin() as connection:
        connection.execute(sa.text(f"SELECT pg_advisory_xact_lock({_LOCK + 1})"))
        _METADATA.create_all(connection)
        if connection.execute(sa.text(_POSTGRES_GUARDED)).first() is None:
            for statement in _POSTGRES_GUARD:
                connection.execute(sa.text(statement))


@contextlib.contextmanager
def exclusive(engine: sa.Engine) -> Iterator[None]:
    """Hold the ledger's lock for the block: one promotion at a time, over all processes; it ends with its process.

    Not re-entrant. Raises ServiceError where another holds it for two minutes.
    """
    if engine.dialect.name == "postgresql":
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            _wait(lambda: bool(connection.scalar(sa.text(f"SELECT pg_try_advisory_lock({_LOCK})"))))
            try:
                yield
            finally:
                connection.scalar(sa.text(f"SELECT pg_advisory_unlock({_LOCK})"))
        return
    database = Path(str(engine.url.database))
    # A file of its own: closing the database's file a second time would drop sqlite's own locks on it.
    descriptor = os.open(database.with_name(f"{database.name}.lock"), os.O_RDWR | os.O_CREAT, 0o666)
    try:
        _wait(lambda: _locked(descriptor))
        yield
    finally:
        os.close(descriptor)


def _locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _wait(taken: Callable[[], bool]) -> None:
    deadline = time.monotonic() + _LOCK_WAIT_S
    while not taken():
        if time.monotonic() > deadline:
            msg = f"the ledger is held by another promotion for more than {_LOCK_WAIT_S:.0f} s; try again later"
            raise ServiceError(msg)
        time.sleep(_POLL_S)
