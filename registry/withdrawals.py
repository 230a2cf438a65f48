"""Models that saw a withdrawn case: marked in MLflow and written down in the ledger."""

from __future__ import annotations

import json
from typing import Any

from registry.lineage import TAG
from registry.store import RegistryStore

WITHDRAW = "withdraw"
WITHDRAWN_TAG = f"{TAG}withdrawn"
TESTED = "tested on"  # a use by which a model learnt nothing


def learnt_and_withdrawn(store: RegistryStore, name: str, version: int) -> list[str]:
    """Keys of withdrawn cases that a version learnt from, by the ledger, sorted."""
    rows = [one for one in store.ledger.entries(name) if one.action == WITHDRAW and one.version == version]
    return sorted({one.details["key"] for one in rows if set(one.details["uses"]) - {TESTED}})


def mark_withdrawn(
    store: RegistryStore, name: str, seen: list[dict[str, Any]], key: str, *, reason: str, actor: str
) -> list[dict[str, Any]]:
    """Tag every version of `seen` (`audit_case`'s models) with `key`, and append one ledger row for each; return them.

    Nothing is written twice: a later call adds a row only for uses of a version that no row of `key` has. "uses" of
    what is returned are all that rows of `key` have.
    """
    uses: dict[int, list[str]] = {}
    for one in seen:
        uses.setdefault(int(one["version"]), []).append(one["use"])
    marked = []
    rows = [entry for entry in store.ledger.entries(name) if entry.action == WITHDRAW]
    for version, how in sorted(uses.items()):
        known = json.loads(store.resolve(name, version).tags.get(WITHDRAWN_TAG, "[]"))
        # the row first: a kill in between leaves a mark missing, which the same command sets. A later look may find
        # that a version learnt from a copy of what it was only known to be tested on: that is a row of its own. It may
        # also find less, where the copy has left the workspace since; that takes nothing back
        told = {
            use for row in rows if (row.version, row.details["key"]) == (version, key) for use in row.details["uses"]
        }
        if set(how) - told:
            details = {"key": key, "uses": sorted(set(how))}
            store.ledger.append(WITHDRAW, model=name, version=version, actor=actor, reason=reason, details=details)
        if key not in known:
            store.client.set_model_version_tag(name, str(version), WITHDRAWN_TAG, json.dumps([*known, key]))
        aliases = list(store.resolve(name, version).aliases)
        marked.append({"version": version, "aliases": aliases, "uses": sorted({*told, *how})})
    return marked
