from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError

from infra.errors import UsageError
from registry.ledger import Ledger, Overtaken
from tests.registry.conftest import unguarded


@pytest.fixture
def ledger(ledger_url: str) -> Ledger:
    ledger = Ledger(ledger_url)
    for number in range(1, 6):
        ledger.append("promote", model="m", version=number, actor="ann", reason="because", details={"n": number})
    return ledger


def execute(ledger: Ledger, statement: str) -> None:
    engine = sa.create_engine(ledger.url)
    try:
        with engine.begin() as connection:
            connection.execute(sa.text(statement))
    finally:
        engine.dispose()


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
def test_a_row_changed_or_removed_is_found_and_named(ledger: Ledger, statement: str, position: int, word: str):
    unguarded(ledger.url, statement.replace(":", r"\:"))
    check = ledger.verify()
    assert (check.ok, check.position) == (False, position)
    assert word in check.problem


def test_rows_that_changed_places_are_found(ledger: Ledger):
    move = "UPDATE segfoundry_ledger SET position = {} WHERE position = {}"
    unguarded(ledger.url, move.format(99, 2), move.format(2, 4), move.format(4, 99))
    check = ledger.verify()
    assert (check.ok, check.position) == (False, 2)


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE segfoundry_ledger SET actor = 'x'",
        "DELETE FROM segfoundry_ledger",
        "TRUNCATE segfoundry_ledger",
        "INSERT OR REPLACE INTO segfoundry_ledger SELECT position, at, 'x', action, model, version, reason, details, "
        "previous_hash, hash FROM segfoundry_ledger WHERE position = 2",
    ],
)
def test_a_slip_in_a_database_shell_is_refused(ledger: Ledger, statement: str):
    foreign = "TRUNCATE" if ledger.url.startswith("sqlite") else "OR REPLACE"  # not in its language
    with pytest.raises(DBAPIError, match=r"append-only|syntax error" if foreign in statement else "append-only"):
        execute(ledger, statement)
    assert ledger.verify().ok


def test_rows_cut_off_at_the_end_are_found_by_a_hash_noted_down(ledger: Ledger):
    noted = ledger.verify()
    assert (noted.entries, noted.head) == (5, ledger.entries()[-1].hash)
    ledger.append("note", model="m", version=None, actor="ann", reason="the ledger went on")
    assert ledger.verify(noted.head).ok
    unguarded(ledger.url, "DELETE FROM segfoundry_ledger WHERE position >= 5")
    assert ledger.verify().ok  # which is why somebody should note the hash down
    check = ledger.verify(noted.head)
    assert (check.ok, check.position) == (False, 5)
    assert noted.head[:12] in check.problem


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


def test_a_table_that_lost_its_guard_gets_it_back(ledger: Ledger) -> None:
    drop = {
        "sqlite": "DROP TRIGGER segfoundry_ledger_no_update",
        "postgresql": "DROP TRIGGER segfoundry_ledger_append_only ON segfoundry_ledger",
    }[sa.make_url(ledger.url).get_backend_name()]
    execute(ledger, drop)
    Ledger(ledger.url).entries()
    with pytest.raises(DBAPIError, match="append-only"):
        execute(ledger, "UPDATE segfoundry_ledger SET actor = 'b'")


def test_another_kind_of_database_is_refused_by_name() -> None:
    with pytest.raises(UsageError, match="found mysql"):
        Ledger("mysql+pymysql://nobody@localhost/x").entries()
