from __future__ import annotations

import sqlite3
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from registry.ledger import Ledger, Overtaken


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ledger.db"


@pytest.fixture
def ledger(path: Path) -> Ledger:
    ledger = Ledger(f"sqlite:///{path}")
    for number in range(1, 6):
        ledger.append("promote", model="m", version=number, actor="ann", reason="because", details={"n": number})
    return ledger


def tamper(path: Path, *statements: str) -> None:
    with sqlite3.connect(path) as connection:
        for verb in ("update", "delete"):
            connection.execute(f"DROP TRIGGER segfoundry_ledger_no_{verb}")
        for statement in statements:
            connection.execute(statement)


def test_an_untouched_chain_holds_and_tells_its_story(ledger: Ledger):
    check = ledger.verify()
    assert (check.ok, check.entries) == (True, 5)
    assert [entry.version for entry in ledger.entries("m")] == [1, 2, 3, 4, 5]
    assert ledger.entries("other") == []


@pytest.mark.parametrize(
    ("statement", "position", "word"),
    [
        ("UPDATE segfoundry_ledger SET actor = 'bob' WHERE position = 3", 3, "changed"),
        ("UPDATE segfoundry_ledger SET details = '{\"n\": 9}' WHERE position = 2", 2, "changed"),
        ("UPDATE segfoundry_ledger SET at = '2020' WHERE position = 5", 5, "changed"),
        ("DELETE FROM segfoundry_ledger WHERE position = 1", 1, "removed"),
        ("DELETE FROM segfoundry_ledger WHERE position = 3", 3, "removed"),
    ],
)
def test_a_row_changed_or_removed_is_found_and_named(
    ledger: Ledger, path: Path, statement: str, position: int, word: str
):
    tamper(path, statement)
    check = ledger.verify()
    assert (check.ok, check.position) == (False, position)
    assert word in check.problem


def test_rows_that_changed_places_are_found(ledger: Ledger, path: Path):
    move = "UPDATE segfoundry_ledger SET position = {} WHERE position = {}"
    tamper(path, move.format(99, 2), move.format(2, 4), move.format(4, 99))
    check = ledger.verify()
    assert (check.ok, check.position) == (False, 2)


def test_a_slip_in_a_database_shell_is_refused(ledger: Ledger, path: Path):
    with sqlite3.connect(path) as connection:
        for statement in ("UPDATE segfoundry_ledger SET actor = 'x'", "DELETE FROM segfoundry_ledger"):
            with pytest.raises(sqlite3.IntegrityError, match="append-only"):
                connection.execute(statement)


def test_many_writers_at_once_get_one_position_each(ledger: Ledger):
    def write(number: int) -> int:
        own = Ledger(ledger.url)
        return own.append("note", model="m", version=None, actor=f"w{number}", reason="race").position

    with ThreadPoolExecutor(8) as pool:
        positions = list(pool.map(write, range(24)))
    assert sorted(positions) == list(range(6, 30))
    assert ledger.verify().ok


def test_only_one_of_two_who_saw_the_same_head_may_follow_it(ledger: Ledger):
    ledger.append("promote", model="m", version=6, actor="ann", reason="first", after=5)
    with pytest.raises(Overtaken, match="somebody else was first"):
        ledger.append("promote", model="m", version=7, actor="bob", reason="second", after=5)


def test_a_table_that_lost_its_guard_to_a_kill_gets_it_back(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'ledger.db'}"
    Ledger(url).append("register", model="m", version=1, actor="a", reason="r")
    with sqlite3.connect(tmp_path / "ledger.db") as database:
        database.execute("DROP TRIGGER segfoundry_ledger_no_update")
    Ledger(url).entries()
    with (
        sqlite3.connect(tmp_path / "ledger.db") as database,
        pytest.raises(sqlite3.IntegrityError, match="append-only"),
    ):
        database.execute("UPDATE segfoundry_ledger SET actor = 'b'")
