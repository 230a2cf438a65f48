"""Alias webhooks, received by a real HTTP server of this machine."""

from __future__ import annotations

import base64
import hashlib
import hmac
import http.server
import json
import logging
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from infra.errors import CheckFailed, UsageError
from infra.processes import free_port
from registry.judging import judge
from registry.promote import promote, reconcile, rollback
from registry.store import RegistryStore
from registry.webhooks import Webhook, signature
from tests.registry.conftest import MODEL, RULES
from tests.registry.light import Light

SECRET = "a-secret-of-the-hospital"
TOKEN = "token-in-the-path"


class Receiver(http.server.ThreadingHTTPServer):
    """Keeps every request; answers with the codes of `answers`, then with 204."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.answers: list[int] = []
        self.requests: list[tuple[dict[str, str], bytes]] = []

    @property
    def events(self) -> list[dict[str, Any]]:
        return [json.loads(body) for _, body in self.requests]


class _Handler(http.server.BaseHTTPRequestHandler):
    server: Receiver

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.requests.append(({key.lower(): value for key, value in self.headers.items()}, body))
        code = self.server.answers.pop(0) if self.server.answers else 204
        self.send_response(code)
        if code == 302:
            self.send_header("Location", f"http://127.0.0.1:{self.server.server_port}/elsewhere")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Silent."""


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    server = Receiver()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def told(store: RegistryStore, receiver: Receiver) -> RegistryStore:
    url = f"http://127.0.0.1:{receiver.server_port}/{TOKEN}"
    store.webhook = Webhook(url, SECRET, pauses_s=(0.01, 0.01))
    return store


def release(store: RegistryStore, made: Light) -> None:
    version = made.version(store, MODEL)
    gate = judge(store, MODEL, version, RULES, current_data_version="data-v1")
    promote(store, MODEL, version, gate=gate, actor="ann", reason="nightly")


def statuses(store: RegistryStore) -> list[str]:
    rows = [one.details for one in store.ledger.entries(MODEL) if one.action == "notified"]
    return [one.get("status", "sent") for one in rows]


def test_a_secret_that_is_none_is_told_before_anything_moves():
    with pytest.raises(UsageError, match="base64"):
        Webhook("http://127.0.0.1:1/x", "whsec_this is no base64!")


def test_an_event_of_a_version_that_was_deleted_holds_no_other_back(told: RegistryStore, receiver: Receiver):
    release(told, Light("first"))
    receiver.answers = [503] * 100
    release(told, Light("second", change={"BUSI": 0.02}))
    rollback(told, MODEL, actor="bob", reason="odd masks")  # its event waits behind that of the second version
    assert 2 in [event["data"]["version"] for event in receiver.events[1:]]
    receiver.answers.clear()
    receiver.requests.clear()
    told.client.delete_model_version(MODEL, "2")
    release(told, Light("third", change={"BUSI": 0.03}))
    assert [event["data"]["version"] for event in receiver.events] == [1, 3]


def test_every_move_is_told_with_what_made_the_version_and_a_signature_that_holds(
    told: RegistryStore, receiver: Receiver
):
    release(told, Light("first"))
    release(told, Light("better", change={"BUSI": 0.02}))
    with pytest.raises(CheckFailed):
        release(told, Light("worse", change={"BUSI": -0.2}))
    rollback(told, MODEL, actor="bob", reason="odd masks")
    assert [event["type"] for event in receiver.events] == [
        "model.promote", "model.promote", "model.block", "model.rollback",
    ]  # fmt: skip
    event = receiver.events[1]["data"]
    assert event["aliases"] == {"champion": 2, "previous": 1, "challenger": None}
    assert (event["model"], event["version"], event["actor"], event["reason"]) == (MODEL, 2, "ann", "nightly")
    assert event["run_id"] == told.resolve(MODEL, 2).run_id
    assert event["gate"]["verdict"] == "pass"
    for name in ("weights_sha256", "data_version", "data_commit", "evaluation_digest", "code_commit", "manifest.BUSI"):
        assert event["lineage"][name], name
    assert receiver.events[2]["data"]["aliases"] == {"challenger": 3}
    assert receiver.events[3]["data"]["aliases"]["champion"] == 1

    for headers, body in receiver.requests:  # as the standard says, worked out by hand
        signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
        made = base64.b64encode(hmac.new(SECRET.encode(), signed, hashlib.sha256).digest()).decode()
        assert headers["webhook-signature"] == f"v1,{made}"
        assert abs(time.time() - int(headers["webhook-timestamp"])) < 60
    assert len({headers["webhook-id"] for headers, _ in receiver.requests}) == 4
    assert statuses(told) == ["begins", "sent", "sent", "sent", "sent"]
    assert told.ledger.verify().ok


def test_it_is_tried_again_under_the_same_name_until_it_is_taken(told: RegistryStore, receiver: Receiver):
    receiver.answers = [503, 429]
    release(told, Light("first"))
    assert len(receiver.requests) == 3
    assert len({headers["webhook-id"] for headers, _ in receiver.requests}) == 1


@pytest.mark.parametrize("code", [401, 302])
def test_an_answer_that_will_not_change_is_not_asked_for_again(told: RegistryStore, receiver: Receiver, code: int):
    receiver.answers = [code]
    release(told, Light("first"))
    assert len(receiver.requests) == 1
    assert told.aliases(MODEL) == {"champion": 1}
    # it holds no other back, and the ledger says what became of it
    release(told, Light("better", change={"BUSI": 0.02}))
    assert [event["data"]["version"] for event in receiver.events] == [1, 2]
    assert statuses(told) == ["begins", "refused", "sent"]
    refused = next(one for one in told.ledger.entries(MODEL) if one.details.get("status") == "refused")
    assert (refused.version, refused.details["answer"]) == (1, f"answer {code}")


@pytest.mark.parametrize("code", [408, 425, 429, 503])
def test_an_answer_that_may_change_keeps_the_order(told: RegistryStore, receiver: Receiver, code: int):
    receiver.answers = [code] * 6  # three attempts of each release
    release(told, Light("first"))
    release(told, Light("better", change={"BUSI": 0.02}))
    assert statuses(told) == ["begins"]
    receiver.requests.clear()
    reconcile(told, MODEL)
    assert [event["data"]["version"] for event in receiver.events] == [1, 2]


def test_a_receiver_that_is_down_from_the_start_hears_of_everything_in_order(told: RegistryStore, receiver: Receiver):
    up = told.webhook
    told.webhook = Webhook(f"http://127.0.0.1:{free_port()}/{TOKEN}", SECRET, pauses_s=(0.01,))
    release(told, Light("first"))
    with pytest.raises(CheckFailed):
        release(told, Light("worse", change={"BUSI": -0.2}))
    told.webhook = up
    reconcile(told, MODEL)
    assert [(event["type"], event["data"]["version"]) for event in receiver.events] == [
        ("model.promote", 1),
        ("model.block", 2),
    ]
    reconcile(told, MODEL)
    assert len(receiver.requests) == 2
    assert told.ledger.verify().ok


def test_an_old_ledger_is_not_told_anew_to_a_receiver_that_is_set_later(told: RegistryStore, receiver: Receiver):
    webhook, told.webhook = told.webhook, None
    for number in range(3):
        release(told, Light(f"m{number}", change={"BUSI": 0.01 * number}))
    told.webhook = webhook
    receiver.answers = [503] * 3
    reconcile(told, MODEL)
    receiver.requests.clear()
    rollback(told, MODEL, actor="bob", reason="odd masks")
    assert [(event["type"], event["data"]["version"]) for event in receiver.events] == [
        ("model.promote", 3),
        ("model.rollback", 2),
    ]


def test_of_two_that_begin_at_once_the_first_row_counts(told: RegistryStore, receiver: Receiver):
    webhook, told.webhook = told.webhook, None
    release(told, Light("first"))
    release(told, Light("better", change={"BUSI": 0.02}))
    events = [one for one in told.ledger.entries(MODEL) if one.action == "done"]
    for before in (0, events[0].position):  # as two processes write them, of which the other saw one event more
        details = {"row": before, "to": "x", "status": "begins"}
        told.ledger.append("notified", model=MODEL, version=1, actor="ann", reason="webhook", details=details)
    told.webhook = webhook
    reconcile(told, MODEL)
    assert [event["data"]["version"] for event in receiver.events] == [1, 2]


def test_a_receiver_that_is_down_stops_no_promotion_and_hears_of_it_later(
    told: RegistryStore, receiver: Receiver, caplog: pytest.LogCaptureFixture
):
    release(told, Light("first"))
    up = told.webhook
    told.webhook = Webhook(f"http://127.0.0.1:{free_port()}/{TOKEN}", SECRET, pauses_s=(0.01,))
    with caplog.at_level(logging.DEBUG):
        release(told, Light("better", change={"BUSI": 0.02}))
        rollback(told, MODEL, actor="bob", reason="odd masks")
    assert told.aliases(MODEL) == {"champion": 1, "previous": 2}
    assert "not delivered" in caplog.text
    assert TOKEN not in caplog.text
    assert SECRET not in caplog.text
    assert len(receiver.requests) == 1
    told.webhook = up
    reconcile(told, MODEL)
    assert [event["type"] for event in receiver.events[1:]] == ["model.promote", "model.rollback"]
    reconcile(told, MODEL)
    assert len(receiver.requests) == 3
    ledger = json.dumps([one.details for one in told.ledger.entries()])
    assert TOKEN not in ledger
    assert SECRET not in ledger


def test_the_example_of_the_standard_is_signed_as_it_says():
    # https://github.com/standard-webhooks/standard-webhooks, "Signature scheme"
    key = Webhook("https://example.org", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").key
    body = b'{"test": 2432232314}'
    assert signature(key, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, body) == (
        "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
    )


@pytest.mark.parametrize(
    ("url", "secret", "word"),
    [
        ("ftp://x/token", SECRET, "WEBHOOK_URL"),
        ("nonsense", SECRET, "WEBHOOK_URL"),
        ("https://x", "short", "WEBHOOK_SECRET"),
        ("https://x", "", "WEBHOOK_SECRET"),
    ],
)
def test_settings_that_cannot_work_are_named_without_being_shown(url: str, secret: str, word: str):
    with pytest.raises(UsageError, match=word) as refused:
        Webhook(url, secret)
    assert "token" not in str(refused.value)
    assert "short" not in str(refused.value)
    assert SECRET not in repr(Webhook("https://example.org/token", SECRET))
