"""How aliases move: an intent row in the ledger, then the aliases, then a done row.

A crash in between leaves an open intent, which whoever comes next carries out. Decisions take turns by a lock in the
ledger's database, which ends with the process that holds it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from infra.errors import CheckFailed, UsageError
from registry.ledger import Entry, Overtaken
from registry.lineage import TAG
from registry.store import ModelVersion, RegistryStore
from registry.webhooks import send_pending

CHAMPION, CHALLENGER, PREVIOUS = "champion", "challenger", "previous"
ALIASES = (CHAMPION, CHALLENGER, PREVIOUS)
PROMOTE, ROLLBACK, RESTORE, ADOPT, DONE = "promote", "rollback", "restore", "adopt", "done"
INTENTS = (PROMOTE, ROLLBACK, RESTORE, ADOPT)
_ATTEMPTS = 10

Targets = dict[str, int | None]


class AliasesMoved(UsageError):
    """MLflow's `champion` or `previous` is not what the ledger says, and no crash explains it."""


@dataclass(frozen=True)
class Present:
    """What a decision starts from: the newest intent, if there is one, and the aliases."""

    intent: Entry | None
    aliases: dict[str, int]


@dataclass(frozen=True)
class Order:
    """What is to be written down about a decision."""

    action: str
    actor: str
    reason: str
    details: dict[str, Any]


@contextlib.contextmanager
def turn(store: RegistryStore, name: str) -> Iterator[None]:
    """The ledger's lock for the block; what moved is told afterwards, when others may go on."""
    try:
        with store.ledger.exclusive():
            yield
    except CheckFailed:  # the challenger may have moved
        send_pending(store, name, store.webhook)
        raise
    send_pending(store, name, store.webhook)


def newest_intent(entries: Sequence[Entry]) -> Entry | None:
    """The row that says what the aliases of a model shall be; None where nothing was ever decided."""
    return next((one for one in reversed(entries) if one.action in INTENTS), None)


def is_open(intent: Entry, entries: Sequence[Entry]) -> bool:
    """Whether a crash came between the intent and its done row."""
    return not any(one.action == DONE and one.details.get("intent") == intent.position for one in entries)


def targets_of(intent: Entry | None) -> Targets:
    """What the aliases shall be by an intent: nothing without one. CheckFailed for a row that was damaged."""
    if intent is None:
        return dict.fromkeys(ALIASES)
    found = intent.details.get("targets")
    if not isinstance(found, dict):
        msg = (
            f"model {intent.model}: expected ledger row {intent.position} to say what the aliases become, found "
            "nothing: it was damaged. Run: segfoundry audit ledger"
        )
        raise CheckFailed(msg)
    return {alias: found.get(alias) for alias in ALIASES}


def standing(store: RegistryStore, name: str, intent: Entry | None, aliases: Mapping[str, int]) -> Targets:
    """What the aliases shall be, as far as it can be: a previous champion that was deleted in MLflow is none."""
    said = targets_of(intent)
    if said[PREVIOUS] != aliases.get(PREVIOUS) and said[PREVIOUS] not in known_versions(store, name):
        said[PREVIOUS] = None
    return said


def repair(store: RegistryStore, name: str) -> list[Entry]:
    """Carry out what a crash left undone; return the done rows written."""
    entries = store.ledger.entries(name)
    closed = {entry.details.get("intent") for entry in entries if entry.action == DONE}
    intents = [entry for entry in entries if entry.action in INTENTS]
    pending = [entry for entry in intents if entry.position not in closed]
    if not pending:
        return []
    # Only the newest intent says what serves; older open ones were overtaken.
    apply(store, name, targets_of(intents[-1]))
    done = [close(store, entry, "reconciled") for entry in pending]
    if intents[-1].version is not None:
        _anchor(store, name, intents[-1].version, done[-1])
    return done


def look(store: RegistryStore, name: str) -> Present:
    """The state that a decision starts from, with what a crash left undone carried out first."""
    repair(store, name)
    # The ledger before the aliases: an intent that comes between the two is noticed when ours is written.
    intent = newest_intent(store.ledger.entries(name))
    return Present(intent, store.aliases(name))


def carry_out(
    store: RegistryStore, name: str, chosen: ModelVersion | None, present: Present, targets: Targets, order: Order
) -> Entry:
    """Intent, aliases, done; returns the done row. `chosen` is what serves afterwards, None where nothing does."""
    intent = _intend(store, name, chosen, present, targets, order)
    apply(store, name, targets)
    entry = close(store, intent, intent.reason)
    if chosen is not None:
        _anchor(store, name, chosen.version, entry)
    return entry


def identity(chosen: ModelVersion) -> dict[str, Any]:
    """What a ledger row says about the version that it is about."""
    names = ("weights_sha256", "evaluation_digest", "data_version", "code_commit")
    return {name: chosen.tags.get(f"{TAG}{name}", "") for name in names}


def apply(store: RegistryStore, name: str, targets: Targets) -> None:
    """Make the aliases what the targets say. `champion` first: it is what serves.

    AliasesMoved where the champion was deleted in MLflow.
    """
    present, known = store.aliases(name), known_versions(store, name)
    moves = {alias: targets.get(alias) for alias in ALIASES if targets.get(alias) != present.get(alias)}
    if moves.get(CHAMPION) not in (None, *known):
        msg = (
            f"model {name}: expected version {moves[CHAMPION]}, which the ledger says is champion, found that it is "
            "not in MLflow any more. To take the aliases as they are: segfoundry model reconcile --adopt "
            "--actor NAME --reason WHY"
        )
        raise AliasesMoved(msg)
    # deleted since: nobody waits any more, and there is nothing to go back to
    moves |= {alias: None for alias, wanted in moves.items() if wanted not in (None, *known)}
    for alias, wanted in moves.items():
        if wanted is None and alias in present:
            store.client.delete_registered_model_alias(name, alias)
        elif wanted is not None:
            store.client.set_registered_model_alias(name, alias, str(wanted))


def known_versions(store: RegistryStore, name: str) -> set[int]:
    """The version numbers that MLflow has."""
    return {one.version for one in store.versions(name)}


def close(store: RegistryStore, intent: Entry, note: str) -> Entry:
    """The done row of an intent, written unless it is there."""
    # Whoever reconciled meanwhile may have closed it; a second done row would say nothing new.
    for entry in store.ledger.entries(intent.model):
        if entry.action == DONE and entry.details.get("intent") == intent.position:
            return entry
    return store.ledger.append(
        DONE,
        model=intent.model,
        version=intent.version,
        actor=intent.actor,
        reason=note or intent.reason,
        details={"intent": intent.position, "intent_hash": intent.hash, "targets": intent.details["targets"]},
    )


def _intend(
    store: RegistryStore, name: str, chosen: ModelVersion | None, present: Present, targets: Targets, order: Order
) -> Entry:
    """Write the intent row, sure that no other intent for this model came since `present` was read."""
    for _ in range(_ATTEMPTS):
        head = store.ledger.head()
        newest = newest_intent(store.ledger.entries(name))
        if newest is not None and newest.position != (present.intent.position if present.intent else 0):
            raise CheckFailed(_overtaken(name, chosen, newest))
        try:
            return store.ledger.append(
                order.action,
                model=name,
                version=chosen.version if chosen else None,
                actor=order.actor,
                reason=order.reason,
                details={**order.details, "targets": targets, **(identity(chosen) if chosen else {})},
                after=head.position if head else 0,
            )
        except Overtaken:
            continue
    msg = f"model {name}: the ledger was overtaken {_ATTEMPTS} times; try again"
    raise CheckFailed(msg)


def _overtaken(name: str, chosen: ModelVersion | None, newest: Entry) -> str:
    what = f"version {chosen.version}" if chosen else "the aliases"
    return (
        f"model {name}: expected to decide on {what} undisturbed, found that "
        f"{newest.actor} made version {newest.version} champion meanwhile; run the gate again"
    )


def _anchor(store: RegistryStore, name: str, version: int, entry: Entry) -> None:
    """Note the newest row's hash at the version: a chain cut off at its end still proves itself, this shows it."""
    store.client.set_model_version_tag(name, str(version), f"{TAG}ledger", f"{entry.position}:{entry.hash}")
