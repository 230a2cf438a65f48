"""Ledger rows changed, removed or reordered, also by somebody who can take the guard off: all are found."""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from dataclasses import asdict

import sqlalchemy as sa

from registry.ledger import Entry, Ledger
from registry.ledger_table import TABLE
from tests.registry.conftest import ledger_url as ledger_url
from tests.registry.conftest import postgres_server as postgres_server
from tests.registry.conftest import unguarded

MUTATIONS = 100 if os.environ.get("SEGFOUNDRY_SOAK") else 24
ROWS = 12
Rows = list[dict[str, object]]


def filled(url: str) -> Ledger:
    ledger = Ledger(url)
    for number in range(1, ROWS + 1):
        ledger.append(
            "promote", model=f"m{number % 2}", version=number, actor="ann", reason="why", details={"value": number / 7}
        )
    return ledger


def changed(rows: Rows, chance: random.Random) -> Rows:
    """One column of one row; what is numbered gets another number, text loses or changes a letter."""
    at = chance.randrange(ROWS)
    column = chance.choice([one.name for one in TABLE.columns])
    value = rows[at][column]
    if isinstance(value, int):
        new: object = value + chance.choice([-1, 1, 1000])
    else:
        text = str(value)
        place = chance.randrange(len(text))
        other = chance.choice([letter for letter in "0a1b2c" if letter != text[place]])
        new = chance.choice([text[:place] + text[place + 1 :], text[:place] + other + text[place + 1 :]])
    return [{**row, column: new} if number == at else row for number, row in enumerate(rows)]


def removed(rows: Rows, chance: random.Random) -> Rows:
    """Some rows in a line; half of the time the rows behind are moved up to hide the hole."""
    first = chance.randrange(ROWS)
    last = min(ROWS, first + chance.choice([1, 1, 2, 5]))
    left = rows[:first] + rows[last:]
    return [{**row, "position": number} for number, row in enumerate(left, 1)] if chance.random() < 0.5 else left


def reordered(rows: Rows, chance: random.Random) -> Rows:
    """Two rows with each other's places."""
    one, other = chance.sample(range(ROWS), 2)
    order = list(range(ROWS))
    order[one], order[other] = other, one
    return [{**rows[was], "position": number} for number, was in enumerate(order, 1)]


KINDS: list[Callable[[Rows, random.Random], Rows]] = [changed, removed, reordered]


def stored(entries: list[Entry], url: str) -> Rows:
    engine = sa.create_engine(url)
    with engine.connect() as connection:
        rows = [dict(row) for row in connection.execute(sa.select(TABLE).order_by(TABLE.c.position)).mappings()]
    engine.dispose()
    assert len(rows) == len(entries)
    return rows


def replace(url: str, rows: Rows) -> None:
    unguarded(url, "DELETE FROM segfoundry_ledger")
    engine = sa.create_engine(url)
    with engine.begin() as connection:
        for row in rows:
            connection.execute(TABLE.insert().values(**row))
    engine.dispose()


def test_every_mutation_is_found(ledger_url: str):
    ledger = filled(ledger_url)
    entries = ledger.entries()
    rows, noted = stored(entries, ledger_url), ledger.verify().head
    missed = []
    for number in range(MUTATIONS):
        chance = random.Random(number)
        kind = KINDS[number % 3]
        mutated = kind(rows, chance)
        while len({row["position"] for row in mutated}) < len(mutated):
            mutated = kind(rows, chance)  # the table itself refuses two rows at one position
        replace(ledger_url, mutated)
        check = Ledger(ledger_url).verify(noted)
        if check.ok or check.position is None or not check.problem:
            missed.append((number, kind.__name__, mutated))
    assert missed == []
    replace(ledger_url, rows)
    assert [asdict(one) for one in Ledger(ledger_url).entries()] == [asdict(one) for one in entries]
    assert ledger.verify(noted).ok


def test_a_text_that_is_no_json_any_more_is_a_broken_link_and_no_crash(ledger_url: str):
    ledger = filled(ledger_url)
    unguarded(ledger_url, "UPDATE segfoundry_ledger SET details = 'no json' WHERE position = 7")
    check = ledger.verify()
    assert (check.ok, check.position) == (False, 7)


def test_a_ledger_emptied_as_a_whole_is_found_by_what_was_noted_down(ledger_url: str):
    ledger = filled(ledger_url)
    noted = ledger.verify().head
    replace(ledger_url, [])
    assert ledger.verify().ok
    assert not ledger.verify(noted).ok
