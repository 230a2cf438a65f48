"""Promotion and rollback: the aliases follow the ledger.

An intent row says what the aliases shall become, then the aliases are set, then a done row closes it.
A crash in between leaves an open intent, which `reconcile` carries out. Promotions take turns by a lock in
the ledger's database, which ends with the process that holds it; the second of two that meet finds another
champion than its gate compared with, and is refused.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from infra.errors import CheckFailed, UsageError
from registry.gate import GateReport
from registry.ledger import Entry, Overtaken
from registry.lineage import TAG
from registry.store import GATE_FILE, ModelVersion, RegistryStore
from registry.webhooks import send_pending
from registry.withdrawals import learnt_and_withdrawn

CHAMPION, CHALLENGER, PREVIOUS = "champion", "challenger", "previous"
ALIASES = (CHAMPION, CHALLENGER, PREVIOUS)
PROMOTE, ROLLBACK, BLOCK, WAIT, DONE = "promote", "rollback", "block", "wait", "done"
_ATTEMPTS = 10

Targets = dict[str, int | None]


class ApprovalNeeded(CheckFailed):
    """The gate passed, and its rules ask for a person's approval, which there is none of yet."""


@dataclass(frozen=True)
class Approval:
    """A person who vouches for a promotion, and why."""

    by: str
    reason: str


@dataclass(frozen=True)
class _Present:
    """What a decision starts from: position of the newest intent (0: none), and the aliases."""

    intent: int
    aliases: dict[str, int]


@dataclass(frozen=True)
class _Order:
    """What is to be written down about a decision."""

    action: str
    actor: str
    reason: str
    details: dict[str, Any]


@dataclass(frozen=True)
class Promotion:
    """What serves now; `changed` is False where it served before."""

    name: str
    champion: int
    previous: int | None
    changed: bool


def promote(
    store: RegistryStore,
    name: str,
    version: int | str,
    *,
    gate: GateReport,
    actor: str,
    reason: str,
    approval: Approval | None = None,
) -> Promotion:
    """Make a version the champion if its gate passed; the champion of before becomes `previous`.

    Raises CheckFailed where the gate blocks (the version stays `challenger`), where the gate was not about
    this version or not against the present champion, and where another promotion came first; ApprovalNeeded
    where the gate's rules ask for an approval and `approval` is None (the version stays `challenger`).
    """
    if approval is not None and not (approval.by.strip() and approval.reason.strip()):
        msg = (
            f"model {name}: expected the name of who approves and a reason, found {approval.by!r}, {approval.reason!r}"
        )
        raise UsageError(msg)
    with _turn(store, name):
        present = _look(store, name)
        chosen = store.resolve(name, version)
        champion = present.aliases.get(CHAMPION)
        if chosen.version == champion:
            return Promotion(name, chosen.version, present.aliases.get(PREVIOUS), changed=False)
        _check_gate_is_about(gate, chosen)
        _record_gate(store, chosen, gate)
        if not gate.passed:
            why = " ".join(rule.explanation for rule in gate.failures)
            _keep_as_challenger(store, chosen, _Order(BLOCK, actor, reason, _gate_details(gate)))
            msg = f"model {chosen.name} version {chosen.version}: the gate blocks: {why}"
            raise CheckFailed(msg)
        _check_gate_was_against(store, name, champion, gate)
        if gate.approval and approval is None:
            _keep_as_challenger(store, chosen, _Order(WAIT, actor, reason, _gate_details(gate)))
            msg = (
                f"model {chosen.name} version {chosen.version}: the gate passes, and its rules ask for a person: "
                f"segfoundry model promote {chosen.version} --approve NAME --reason WHY"
            )
            raise ApprovalNeeded(msg)
        targets: Targets = {CHAMPION: chosen.version, PREVIOUS: champion, CHALLENGER: None}
        details = {**_gate_details(gate), **({"approval": asdict(approval)} if approval else {})}
        return _carry_out(store, chosen, present, targets, _Order(PROMOTE, actor, reason, details))


def rollback(
    store: RegistryStore, name: str, *, actor: str, reason: str, despite_withdrawal: bool = False
) -> Promotion:
    """Let the previous champion serve again; the champion of now becomes `previous`.

    Raises CheckFailed where there is no previous one, and where it learnt from cases that were withdrawn since,
    unless `despite_withdrawal`, which the ledger keeps with their keys.
    """
    with _turn(store, name):
        present = _look(store, name)
        champion, previous = present.aliases.get(CHAMPION), present.aliases.get(PREVIOUS)
        if previous is None or champion is None:
            msg = f"model {name}: expected a previous champion to go back to, found none; promote a version by number"
            raise CheckFailed(msg)
        withdrawn = learnt_and_withdrawn(store, name, previous)
        if withdrawn and not despite_withdrawal:
            msg = (
                f"model {name} version {previous}: expected a version to go back to that learnt from no withdrawn "
                f"case, found {', '.join(withdrawn)}. Train again without it, or, where serving must go on and whoever "
                "answers for it agrees, add --despite-withdrawal"
            )
            raise CheckFailed(msg)
        targets: Targets = {CHAMPION: previous, PREVIOUS: champion, CHALLENGER: present.aliases.get(CHALLENGER)}
        details = {"despite_withdrawal": withdrawn} if withdrawn else {}
        order = _Order(ROLLBACK, actor, reason, details)
        return _carry_out(store, store.resolve(name, previous), present, targets, order)


def rolled_back(store: RegistryStore, name: str, version: int) -> bool:
    """Whether a person took this version out of service last: a rerun must not put it back by itself."""
    intent = _newest_intent(store, name)
    return intent is not None and intent.action == ROLLBACK and intent.details["targets"][PREVIOUS] == version


def reconcile(store: RegistryStore, name: str) -> list[Entry]:
    """Carry out what a crash left undone between ledger and aliases; return the done rows written.

    Aliases that somebody set by hand are left as they are: `segfoundry audit ledger` tells of them.
    """
    with _turn(store, name):
        return _reconcile(store, name)


@contextlib.contextmanager
def _turn(store: RegistryStore, name: str) -> Iterator[None]:
    """The ledger's lock for the block; what moved is told afterwards, when others may go on."""
    try:
        with store.ledger.exclusive():
            yield
    except CheckFailed:  # the challenger may have moved
        send_pending(store, name, store.webhook)
        raise
    send_pending(store, name, store.webhook)


def _reconcile(store: RegistryStore, name: str) -> list[Entry]:
    entries = store.ledger.entries(name)
    closed = {entry.details.get("intent") for entry in entries if entry.action == DONE}
    intents = [entry for entry in entries if entry.action in (PROMOTE, ROLLBACK)]
    pending = [entry for entry in intents if entry.position not in closed]
    if not pending:
        return []
    # Only the newest intent says what serves; older open ones were overtaken.
    _apply(store, name, intents[-1].details["targets"])
    done = [_close(store, entry, "reconciled") for entry in pending]
    _anchor(store, store.resolve(name, int(intents[-1].version or 0)), done[-1])
    return done


def _look(store: RegistryStore, name: str) -> _Present:
    """The state that a decision starts from, with what a crash left undone carried out first."""
    _reconcile(store, name)
    # The ledger before the aliases: an intent that comes between the two is noticed when ours is written.
    intent = _newest_intent(store, name)
    return _Present(intent.position if intent else 0, store.aliases(name))


def _newest_intent(store: RegistryStore, name: str) -> Entry | None:
    return next((one for one in reversed(store.ledger.entries(name)) if one.action in (PROMOTE, ROLLBACK)), None)


def _carry_out(
    store: RegistryStore, chosen: ModelVersion, present: _Present, targets: Targets, order: _Order
) -> Promotion:
    """Intent, aliases, done."""
    intent = _intend(store, chosen, present, targets, order)
    _apply(store, chosen.name, targets)
    entry = _close(store, intent, intent.reason)
    _anchor(store, chosen, entry)
    return Promotion(chosen.name, chosen.version, targets[PREVIOUS], changed=True)


def _intend(store: RegistryStore, chosen: ModelVersion, present: _Present, targets: Targets, order: _Order) -> Entry:
    """Write the intent row, sure that no other intent for this model came since `present` was read."""
    for _ in range(_ATTEMPTS):
        head = store.ledger.head()
        newest = _newest_intent(store, chosen.name)
        if newest is not None and newest.position != present.intent:
            raise CheckFailed(_overtaken(chosen, newest))
        try:
            return store.ledger.append(
                order.action,
                model=chosen.name,
                version=chosen.version,
                actor=order.actor,
                reason=order.reason,
                details={**order.details, "targets": targets, **_identity(chosen)},
                after=head.position if head else 0,
            )
        except Overtaken:
            continue
    msg = f"model {chosen.name}: the ledger was overtaken {_ATTEMPTS} times; try again"
    raise CheckFailed(msg)


def _overtaken(chosen: ModelVersion, newest: Entry) -> str:
    return (
        f"model {chosen.name}: expected to decide on version {chosen.version} undisturbed, found that "
        f"{newest.actor} made version {newest.version} champion meanwhile; run the gate again"
    )


def _apply(store: RegistryStore, name: str, targets: Targets) -> None:
    """Make the aliases what the targets say. `champion` first: it is what serves."""
    present = store.aliases(name)
    for alias in ALIASES:
        wanted = targets.get(alias)
        if wanted == present.get(alias):
            continue
        if wanted is None:
            store.client.delete_registered_model_alias(name, alias)
        else:
            store.client.set_registered_model_alias(name, alias, str(wanted))


def _close(store: RegistryStore, intent: Entry, note: str) -> Entry:
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


def _anchor(store: RegistryStore, chosen: ModelVersion, entry: Entry) -> None:
    """Note the newest row's hash at the version: a chain cut off at its end still proves itself, this shows it."""
    store.client.set_model_version_tag(
        chosen.name, str(chosen.version), f"{TAG}ledger", f"{entry.position}:{entry.hash}"
    )


def _check_gate_is_about(gate: GateReport, chosen: ModelVersion) -> None:
    if gate.weights_sha256 != chosen.weights_sha256:
        msg = (
            f"model {chosen.name} version {chosen.version}: expected a gate report about its weights "
            f"{chosen.weights_sha256[:12]}, found one about {gate.weights_sha256[:12]}; run the gate for this version"
        )
        raise CheckFailed(msg)


def _check_gate_was_against(store: RegistryStore, name: str, champion: int | None, gate: GateReport) -> None:
    against = store.resolve(name, champion).weights_sha256 if champion is not None else None
    if gate.champion_weights_sha256 != against:
        msg = (
            f"model {name}: expected a gate report against the present champion "
            f"({f'version {champion}' if champion is not None else 'none'}), found one against "
            f"{(gate.champion_weights_sha256 or 'none')[:12]}; run the gate again"
        )
        raise CheckFailed(msg)


def _record_gate(store: RegistryStore, chosen: ModelVersion, gate: GateReport) -> None:
    if chosen.tags.get(f"{TAG}gate_digest") == gate.digest:
        return
    store.log_json(chosen.run_id, GATE_FILE, gate.to_dict())
    tags = {"gate": gate.verdict, "gate_digest": gate.digest}
    tags["gate_failures"] = ", ".join(f"{rule.name} {rule.subject}".strip() for rule in gate.failures) or "none"
    for key, value in tags.items():
        store.client.set_model_version_tag(chosen.name, str(chosen.version), f"{TAG}{key}", value)


def _keep_as_challenger(store: RegistryStore, chosen: ModelVersion, order: _Order) -> None:
    """The row before the alias: a kill in between leaves an alias missing, which the same command sets."""
    decided = [one for one in store.ledger.entries(chosen.name) if one.action in (PROMOTE, ROLLBACK, BLOCK, WAIT, DONE)]
    last = next((one for one in reversed(decided) if one.version == chosen.version), None)
    said = order.details["gate_digest"]
    if last is None or last.action != order.action or last.details.get("gate_digest") != said:
        store.ledger.append(
            order.action,
            model=chosen.name,
            version=chosen.version,
            actor=order.actor,
            reason=order.reason,
            details={**order.details, **_identity(chosen)},
        )
    store.client.set_registered_model_alias(chosen.name, CHALLENGER, str(chosen.version))


def _gate_details(gate: GateReport) -> dict[str, Any]:
    kept = ("name", "subject", "value", "limit", "ok")
    rules = [{name: getattr(rule, name) for name in kept} for rule in gate.rules]
    return {"verdict": gate.verdict, "gate_digest": gate.digest, "rules": rules}


def _identity(chosen: ModelVersion) -> dict[str, Any]:
    names = ("weights_sha256", "evaluation_digest", "data_version", "code_commit")
    return {name: chosen.tags.get(f"{TAG}{name}", "") for name in names}
