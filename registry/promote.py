"""Promotion and rollback: the aliases follow the ledger (`registry.intents`).

Of two promotions that meet, the second finds another champion than its gate compared with, and is refused. Neither
builds on aliases that somebody set by hand (`registry.moved`).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from infra.errors import CheckFailed, UsageError
from registry.gate import GateReport
from registry.intents import (
    ADOPT,
    CHALLENGER,
    CHAMPION,
    DONE,
    INTENTS,
    PREVIOUS,
    PROMOTE,
    ROLLBACK,
    Order,
    Present,
    Targets,
    carry_out,
    identity,
    look,
    repair,
    standing,
    turn,
)
from registry.ledger import Entry
from registry.lineage import TAG
from registry.moved import refuse_moved
from registry.store import GATE_FILE, ModelVersion, RegistryStore
from registry.withdrawals import learnt_and_withdrawn

BLOCK, WAIT = "block", "wait"


class ApprovalNeeded(CheckFailed):
    """The gate passed, and its rules ask for a person's approval, which there is none of yet."""


@dataclass(frozen=True)
class Approval:
    """A person who vouches for a promotion, and why."""

    by: str
    reason: str


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
    unattended: bool = False,
) -> Promotion:
    """Make a version the champion if its gate passed; the champion of before becomes `previous`.

    `unattended`: no person asked for this one. Raises CheckFailed where the gate blocks (the version stays
    `challenger`), where the gate was not about this version or not against the present champion, and where another
    promotion came first; ApprovalNeeded (the version stays `challenger`) where the gate's rules ask for an approval
    and `approval` is None, and, unattended, where a person took these weights out of service; AliasesMoved where
    somebody set the aliases by hand.
    """
    if approval is not None and not (approval.by.strip() and approval.reason.strip()):
        msg = (
            f"model {name}: expected the name of who approves and a reason, found {approval.by!r}, {approval.reason!r}"
        )
        raise UsageError(msg)
    with turn(store, name):
        present = _settled(store, name)
        chosen = store.resolve(name, version)
        champion = present.aliases.get(CHAMPION)
        if chosen.version == champion:
            return Promotion(name, chosen.version, present.aliases.get(PREVIOUS), changed=False)
        _check_gate_is_about(gate, chosen)
        _record_gate(store, chosen, gate)
        if not gate.passed:
            why = " ".join(rule.explanation for rule in gate.failures)
            _keep_as_challenger(store, chosen, Order(BLOCK, actor, reason, _gate_details(gate)))
            msg = f"model {chosen.name} version {chosen.version}: the gate blocks: {why}"
            raise CheckFailed(msg)
        _check_gate_was_against(store, name, champion, gate)
        if gate.approval and approval is None:
            _keep_as_challenger(store, chosen, Order(WAIT, actor, reason, _gate_details(gate)))
            msg = (
                f"model {chosen.name} version {chosen.version}: the gate passes, and its rules ask for a person: "
                f"segfoundry model promote {chosen.version} --approve NAME --reason WHY"
            )
            raise ApprovalNeeded(msg)
        taken = taken_back(store, name).get(chosen.weights_sha256)
        if unattended and taken is not None:
            why = f"{taken.actor} took its weights out of service on {taken.at[:10]} ({taken.reason})"
            _keep_as_challenger(store, chosen, Order(WAIT, actor, f"{reason}; {why}", _gate_details(gate)))
            msg = (
                f"model {chosen.name} version {chosen.version}: the gate passes, but {why}: only a person promotes it "
                f"again: segfoundry model promote {chosen.version} --reason WHY"
            )
            raise ApprovalNeeded(msg)
        targets: Targets = {CHAMPION: chosen.version, PREVIOUS: champion, CHALLENGER: None}
        details = {**_gate_details(gate), **({"approval": asdict(approval)} if approval else {})}
        carry_out(store, name, chosen, present, targets, Order(PROMOTE, actor, reason, details))
        return Promotion(name, chosen.version, champion, changed=True)


def rollback(
    store: RegistryStore, name: str, *, actor: str, reason: str, despite_withdrawal: bool = False
) -> Promotion:
    """Let the previous champion, by the ledger, serve again; the champion of now becomes `previous`.

    Raises CheckFailed where there is no previous one, and where it learnt from cases that were withdrawn since,
    unless `despite_withdrawal`, which the ledger keeps with their keys; AliasesMoved where somebody set the aliases
    by hand.
    """
    with turn(store, name):
        present = _settled(store, name)
        said = standing(store, name, present.intent, present.aliases)
        champion, previous = said[CHAMPION], said[PREVIOUS]
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
        waits = present.aliases.get(CHALLENGER)
        targets: Targets = {CHAMPION: previous, PREVIOUS: champion, CHALLENGER: None if waits == previous else waits}
        details = {"despite_withdrawal": withdrawn} if withdrawn else {}
        order = Order(ROLLBACK, actor, reason, details)
        carry_out(store, name, store.resolve(name, previous), present, targets, order)
        return Promotion(name, previous, champion, changed=True)


def taken_back(store: RegistryStore, name: str) -> dict[str, Entry]:
    """SHA-256 of weights that a person took out of service, by a rollback or by hand -> the row that says so.

    By weights: what is evaluated again, or trained again bit by bit, is another version and the same model. Weights
    that serve again are not among them: nothing but a person puts them back.
    """
    taken: dict[str, Entry] = {}
    weights: dict[int, str] = {}
    before: int | None = None
    for entry in store.ledger.entries(name):
        if entry.action not in INTENTS:
            continue
        champion = (entry.details.get("targets") or {}).get(CHAMPION)
        if entry.action in (ROLLBACK, ADOPT) and before is not None and before != champion:
            taken[weights.get(before, "")] = entry
        if champion is not None:
            weights[champion] = str(entry.details.get("weights_sha256") or "")
            taken.pop(weights[champion], None)
        before = champion
    taken.pop("", None)
    return taken


def reconcile(store: RegistryStore, name: str) -> list[Entry]:
    """Carry out what a crash left undone between ledger and aliases; return the done rows written.

    Aliases that somebody set by hand are left as they are: `segfoundry audit ledger` tells of them, and
    `registry.moved` puts them back or takes them over.
    """
    with turn(store, name):
        return repair(store, name)


def _settled(store: RegistryStore, name: str) -> Present:
    """The state to decide from: no crash left open, and the aliases as the ledger says."""
    present = look(store, name)
    refuse_moved(store, name, present)
    return present


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


def _keep_as_challenger(store: RegistryStore, chosen: ModelVersion, order: Order) -> None:
    """The row before the alias: a kill in between leaves an alias missing, which the same command sets."""
    decided = [one for one in store.ledger.entries(chosen.name) if one.action in (*INTENTS, BLOCK, WAIT, DONE)]
    last = next((one for one in reversed(decided) if one.version == chosen.version), None)
    said = order.details["gate_digest"]
    if last is None or last.action != order.action or last.details.get("gate_digest") != said:
        store.ledger.append(
            order.action,
            model=chosen.name,
            version=chosen.version,
            actor=order.actor,
            reason=order.reason,
            details={**order.details, **identity(chosen)},
        )
    store.client.set_registered_model_alias(chosen.name, CHALLENGER, str(chosen.version))


def _gate_details(gate: GateReport) -> dict[str, Any]:
    kept = ("name", "subject", "value", "limit", "ok")
    rules = [{name: getattr(rule, name) for name in kept} for rule in gate.rules]
    return {"verdict": gate.verdict, "gate_digest": gate.digest, "rules": rules}
