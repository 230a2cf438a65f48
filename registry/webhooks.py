"""Tell another system of every alias that moves: a signed POST, again until it is taken, never twice under two names.

Signed as https://www.standardwebhooks.com says: headers webhook-id, webhook-timestamp and webhook-signature,
which is "v1," and the base64 of HMAC-SHA256 over "id.timestamp.body". MLflow's own webhooks are sent by its server
alone, know no run and no lineage, and say nothing where a workspace writes to its database itself.

What was sent is a row of the ledger, so that an event that a crash or a broken network kept back goes out later.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import http.client
import json
import logging
import time
import urllib.error
import urllib.request
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from infra.errors import UsageError
from registry.ledger import Entry
from registry.lineage import TAG
from registry.store import RegistryStore

NOTIFIED = "notified"
BEGINS, REFUSED = "begins", "refused"  # what such a row can say in its details, beside that an event was taken
_EVENTS = ("done", "block", "wait")  # rows after which aliases have moved
_TIMEOUT_S = 5.0
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Webhook:
    """Where events go. Address and secret are in no representation: both may let somebody in."""

    url: str = field(repr=False)
    secret: str = field(repr=False)
    pauses_s: tuple[float, ...] = (0.5, 2.0, 5.0)  # before each further attempt

    def __post_init__(self) -> None:
        if urlsplit(self.url).scheme not in ("http", "https") or not urlsplit(self.url).hostname:
            msg = "SEGFOUNDRY_WEBHOOK_URL: expected an address that begins with http:// or https://"
            raise UsageError(msg)
        if len(self.secret) < 16:
            msg = (
                "SEGFOUNDRY_WEBHOOK_SECRET: expected at least 16 letters, which the receiver checks signatures with, "
                f"found {len(self.secret)}"
            )
            raise UsageError(msg)
        _ = self.key  # one that cannot be decoded is told now, not when an alias has moved

    @property
    def host(self) -> str:
        """What may be told about the address: path and query can hold a token."""
        return str(urlsplit(self.url).hostname)

    @property
    def key(self) -> bytes:
        """The secret's bytes: base64 after "whsec_", as the standard has it, else the text itself."""
        if self.secret.startswith("whsec_"):
            try:
                return base64.b64decode(self.secret.removeprefix("whsec_"), validate=True)
            except binascii.Error as error:
                msg = "SEGFOUNDRY_WEBHOOK_SECRET: expected base64 after whsec_"
                raise UsageError(msg) from error
        return self.secret.encode()


def signature(key: bytes, identity: str, timestamp: int, body: bytes) -> str:
    """The value of webhook-signature."""
    signed = hmac.new(key, f"{identity}.{timestamp}.".encode() + body, hashlib.sha256).digest()
    return f"v1,{base64.b64encode(signed).decode()}"


def send_pending(store: RegistryStore, name: str, webhook: Webhook | None) -> list[Entry]:
    """Send what was not sent yet, in the ledger's order; returns the rows that say what became of each event.

    A ledger that never sent anything begins with its newest event, and a row says so before the first attempt: an
    old ledger is not told anew, and nothing that comes after is lost. What cannot be delivered stops the rest, is
    logged, and goes out with the next call: a promotion does not fail because somebody else's server is down. What
    the receiver refuses for good is noted as refused, and the next event goes out.
    """
    if webhook is None:
        return []
    told = []
    for entry in _unsent(store, name, webhook):
        try:
            payload = _payload(store, entry)
        except UsageError as error:  # its version was deleted since: nobody can be told any more what it was
            _LOG.warning("webhook: event of ledger row %d is left out: %s", entry.position, error)
            continue
        problem, final = _deliver(webhook, f"{entry.hash[:32]}", payload)
        if problem:
            said = "was refused and is not sent again" if final else "not delivered"
            _LOG.warning("webhook to %s: event of ledger row %d %s: %s", webhook.host, entry.position, said, problem)
        if problem and not final:
            break
        details: dict[str, Any] = {"row": entry.position, "row_hash": entry.hash, "to": webhook.host}
        told.append(_note(store, entry, {**details, "status": REFUSED, "answer": problem} if problem else details))
    return told


def _unsent(store: RegistryStore, name: str, webhook: Webhook) -> list[Entry]:
    """The events that nobody was told of yet, oldest first."""
    entries = store.ledger.entries(name)
    events = [entry for entry in entries if entry.action in _EVENTS]
    known = [entry.details for entry in entries if entry.action == NOTIFIED]
    if not known and events:
        before = events[-2].position if len(events) > 1 else 0
        _note(store, events[-1], {"row": before, "to": webhook.host, "status": BEGINS})
        # of two that begin at once the ledger's first counts
        known = [entry.details for entry in store.ledger.entries(name) if entry.action == NOTIFIED]
    # every row says up to which event all is done; that of a second beginner says nothing
    told = known[:1] + [one for one in known[1:] if one.get("status") != BEGINS]
    last = max((int(one["row"]) for one in told), default=0)
    return [entry for entry in events if entry.position > last]


def _note(store: RegistryStore, entry: Entry, details: dict[str, Any]) -> Entry:
    return store.ledger.append(
        NOTIFIED, model=entry.model, version=entry.version, actor=entry.actor, reason="webhook", details=details
    )


def _payload(store: RegistryStore, entry: Entry) -> bytes:
    """The event: what moved, who moved it and why, and what made the version."""
    intent = _intent_of(store, entry)
    version = store.resolve(entry.model, int(entry.version or 0))
    lineage = {key.removeprefix(TAG): value for key, value in sorted(version.tags.items()) if key.startswith(TAG)}
    aliases = intent.details.get("targets") or {"challenger": entry.version}
    value = {
        "type": f"model.{intent.action}",
        "timestamp": entry.at,
        "data": {
            "model": entry.model,
            "version": entry.version,
            "run_id": version.run_id,
            "aliases": aliases,
            "actor": entry.actor,
            "reason": intent.reason,
            "approval": intent.details.get("approval"),
            "gate": {name: intent.details.get(name) for name in ("verdict", "gate_digest")},
            "lineage": lineage,
            "ledger": {"position": entry.position, "hash": entry.hash},
        },
    }
    return json.dumps(value, sort_keys=True, ensure_ascii=False).encode()


def _intent_of(store: RegistryStore, entry: Entry) -> Entry:
    position = entry.details.get("intent")
    return next((one for one in store.ledger.entries(entry.model) if one.position == position), entry)


def _deliver(webhook: Webhook, identity: str, body: bytes) -> tuple[str, bool]:
    """No problem when it was taken, else the last one, without address and secret, and whether it stays."""
    problem, final = "", False
    for pause in (0.0, *webhook.pauses_s):
        time.sleep(pause)
        problem, final = _attempt(webhook, identity, body)
        if not problem or final:
            break
    return problem, final


def _attempt(webhook: Webhook, identity: str, body: bytes) -> tuple[str, bool]:
    """The problem of one attempt, and whether another would change nothing."""
    now = int(time.time())
    headers = {
        "Content-Type": "application/json",
        "User-Agent": "segfoundry",
        "webhook-id": identity,
        "webhook-timestamp": str(now),
        "webhook-signature": signature(webhook.key, identity, now, body),
    }
    request = urllib.request.Request(webhook.url, data=body, headers=headers, method="POST")
    try:
        with _OPENER.open(request, timeout=_TIMEOUT_S) as answer:
            answer.read(1)
    except urllib.error.HTTPError as error:
        # 4xx says that this request is wrong; of these, only "too slow" and "too many" pass.
        return f"answer {error.code}", error.code < 500 and error.code not in (408, 425, 429)
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", error)
        return type(reason).__name__, False
    return "", False


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """An event goes to the address that was set, or nowhere."""

    def redirect_request(self, *_: Any, **__: Any) -> None:
        """No second request."""
        return


_OPENER = urllib.request.build_opener(_NoRedirect)
