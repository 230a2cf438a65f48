"""Aliases that somebody moved in MLflow, past the ledger: found, refused, put back, or taken as they are.

Neither promotion nor rollback builds on them: the one would go over what somebody did without a word, the other would
let a version serve that the ledger never said was champion.
"""

from __future__ import annotations

from infra.errors import UsageError
from registry.intents import (
    ADOPT,
    CHALLENGER,
    CHAMPION,
    PREVIOUS,
    RESTORE,
    AliasesMoved,
    Order,
    Present,
    Targets,
    carry_out,
    is_open,
    known_versions,
    look,
    newest_intent,
    standing,
    turn,
)
from registry.ledger import Entry
from registry.lineage import TAG
from registry.store import ModelVersion, RegistryStore

_CHECKED = (CHAMPION, PREVIOUS)  # what serves, and what a rollback would let serve


def check_aliases(store: RegistryStore, name: str) -> None:
    """AliasesMoved where `champion` or `previous` were set outside segfoundry; not after a crash, which is repaired."""
    entries = store.ledger.entries(name)
    intent = newest_intent(entries)
    if intent is None or not is_open(intent, entries):
        refuse_moved(store, name, Present(intent, store.aliases(name)))


def refuse_moved(store: RegistryStore, name: str, present: Present) -> None:
    """AliasesMoved where the ledger says other ones than `present`, with both and what to do."""
    said = standing(store, name, present.intent, present.aliases)
    if not _moved(said, present):
        return
    adopt = "take them as they are: segfoundry model reconcile --adopt --actor NAME --reason WHY"
    if present.intent is None:
        fix = f"{adopt[0].upper()}{adopt[1:]}"
    elif said[CHAMPION] not in (None, *known_versions(store, name)):
        fix = f"Version {said[CHAMPION]} is not in MLflow any more; {adopt}"
    else:
        fix = f"Put them back: segfoundry model reconcile --restore --reason WHY; or {adopt}"
    msg = (
        f"model {name}: expected the aliases that the ledger says ({_shown(said)}), found in MLflow "
        f"{_shown(present.aliases)}: set outside segfoundry. {fix}"
    )
    raise AliasesMoved(msg)


def restore(store: RegistryStore, name: str, *, actor: str, reason: str) -> Entry | None:
    """Put `champion` and `previous` back to what the ledger says; None where they are.

    UsageError where the ledger says nothing, or where a version that it names is not in MLflow any more or has other
    weights.
    """
    _need_words(name, actor, reason)
    with turn(store, name):
        present = look(store, name)
        said = standing(store, name, present.intent, present.aliases)
        if present.intent is None:
            msg = (
                f"model {name}: expected rows in the ledger to put the aliases back to, found none. To take them as "
                "they are: segfoundry model reconcile --adopt --actor NAME --reason WHY"
            )
            raise UsageError(msg)
        if not _moved(said, present):
            return None
        champion = _as_recorded(store, name, said[CHAMPION])
        _as_recorded(store, name, said[PREVIOUS])
        found = {alias: present.aliases.get(alias) for alias in _CHECKED}
        targets: Targets = {**said, CHALLENGER: present.aliases.get(CHALLENGER)}
        return carry_out(store, name, champion, present, targets, Order(RESTORE, actor, reason, {"found": found}))


def adopt(store: RegistryStore, name: str, *, actor: str, reason: str) -> Entry | None:
    """Take the aliases as they are in MLflow: from now on the ledger says so; None where it does.

    UsageError for a version that segfoundry did not register: nothing could be compared with it.
    """
    _need_words(name, actor, reason)
    with turn(store, name):
        present = _look_despite_gone(store, name)
        said = standing(store, name, present.intent, present.aliases)
        if not _moved(said, present):
            return None
        champion = _ours(store, name, present.aliases.get(CHAMPION))
        _ours(store, name, present.aliases.get(PREVIOUS))
        targets: Targets = {alias: present.aliases.get(alias) for alias in said}
        details = {
            "before": {alias: said[alias] for alias in _CHECKED},
            "verdict": champion.tags.get(f"{TAG}gate", "not judged") if champion else None,
        }
        return carry_out(store, name, champion, present, targets, Order(ADOPT, actor, reason, details))


def _look_despite_gone(store: RegistryStore, name: str) -> Present:
    """As `look`; where an open intent can no longer be carried out, since its version is gone, as it is."""
    try:
        return look(store, name)
    except AliasesMoved:
        return Present(newest_intent(store.ledger.entries(name)), store.aliases(name))


def _moved(said: Targets, present: Present) -> bool:
    return any(said[alias] != present.aliases.get(alias) for alias in _CHECKED)


def _shown(aliases: Targets | dict[str, int]) -> str:
    found = {alias: aliases.get(alias) for alias in _CHECKED}
    return ", ".join(f"{alias} {'none' if at is None else f'version {at}'}" for alias, at in found.items())


def _as_recorded(store: RegistryStore, name: str, version: int | None) -> ModelVersion | None:
    """The version, if it is the one that the ledger means by its number."""
    if version is None:
        return None
    rows = store.ledger.entries(name)
    meant = {one.details.get("weights_sha256") for one in rows if one.version == version} - {None, ""}
    found = next((one for one in store.versions(name) if one.version == version), None)
    if found is not None and (not meant or found.weights_sha256 in meant):
        return found
    why = "other weights under that number" if found else "that it is not there any more"
    msg = (
        f"model {name}: expected in MLflow the version {version} that the ledger says, found {why}. To take the "
        "aliases as they are: segfoundry model reconcile --adopt --actor NAME --reason WHY"
    )
    raise UsageError(msg)


def _ours(store: RegistryStore, name: str, version: int | None) -> ModelVersion | None:
    if version is None:
        return None
    found = store.resolve(name, version)
    if found.weights_sha256:
        return found
    msg = (
        f"model {name} version {version}: expected a version that segfoundry registered, found one without its "
        "tags, which nothing can be compared with. Take the alias from it in MLflow, or --restore"
    )
    raise UsageError(msg)


def _need_words(name: str, actor: str, reason: str) -> None:
    if not (actor.strip() and reason.strip()):
        msg = f"model {name}: expected who does this and why, which the ledger keeps, found {actor!r}, {reason!r}"
        raise UsageError(msg)
