"""Secret canaries: passwords and keys of the machine are in no message, log, traceback, table or kept file."""

from __future__ import annotations

import io
import json
import logging
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from infra import secrets
from infra.errors import CaseError, SegfoundryError, ServiceError
from infra.secrets import HIDDEN, keep_out_of_logs, without_secrets
from preprocessing.cards import load_card
from preprocessing.sources import forget, locate
from registry.store import RegistryStore

CANARY = "SECRETCANARY7f3a"
VARIABLES = {
    "SEGFOUNDRY_PSEUDONYM_KEY": f"{CANARY}-pseudonyms",
    "AWS_SECRET_ACCESS_KEY": f"{CANARY}/aws+secret",
    "MLFLOW_TRACKING_PASSWORD": f"{CANARY}-mlflow",
    "SEGFOUNDRY_LEDGER_URL": f"postgresql://ledger:{CANARY}-p%40ss@db.example.org/ledger",
}


@pytest.fixture(autouse=True)
def machine(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name, value in VARIABLES.items():
        monkeypatch.setenv(name, value)
    factory, hook = logging.getLogRecordFactory(), sys.excepthook
    forget()
    yield
    logging.setLogRecordFactory(factory)
    sys.excepthook = hook
    forget()


def logged() -> str:
    """What a handler that was there before writes: arguments, quoted errors, and their causes."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    logger = logging.getLogger("some.library")
    logger.addHandler(handler)
    try:
        keep_out_of_logs()
        logger.warning("signing with %s failed", VARIABLES["AWS_SECRET_ACCESS_KEY"])
        try:
            try:
                raise ValueError(f"bad key {VARIABLES['AWS_SECRET_ACCESS_KEY']}")
            except ValueError as first:
                raise RuntimeError(f"cannot open s3://AKIA:{CANARY}@bucket/data") from first
        except RuntimeError:
            logger.exception("gave up")
    finally:
        logger.removeHandler(handler)
    assert "signing with [secret] failed" in stream.getvalue()
    assert "s3://[secret]@bucket/data" in stream.getvalue()
    assert "ValueError: bad key [secret]" in stream.getvalue()
    return stream.getvalue()


def remote_mirror(tmp_path: Path, offline: bool) -> str:
    url = f"http://reader:{CANARY}@127.0.0.1:9/mirror?sig={CANARY}"
    try:
        said = locate(load_card("BUSI"), mirror=url, downloads=tmp_path, offline=offline, max_bytes=10).reason
    except SegfoundryError as error:
        said = str(error)
    assert "127.0.0.1:9/mirror" in said
    return said


def mlflow_address(tmp_path: Path) -> str:
    with pytest.raises(SegfoundryError) as caught:
        _ = RegistryStore(f"http://ann:{CANARY}@127.0.0.1:9", tmp_path).ledger
    return str(caught.value)


def left_by(code: str, *arguments: str, **variables: str) -> str:
    done = subprocess.run(
        [sys.executable, *(["-c", code] if code else []), *arguments],
        capture_output=True, text=True, env={**os.environ, **variables}, timeout=120, check=False,
    )  # fmt: skip
    return done.stdout + done.stderr


def traceback_of_a_bug() -> str:
    said = left_by(
        "import os; from infra.secrets import keep_out_of_logs as k; k()\n"
        "raise KeyError(os.environ['SEGFOUNDRY_PSEUDONYM_KEY'])"
    )
    assert "Traceback" in said
    assert f"KeyError: '{HIDDEN}'" in said
    return said


def command_line(*arguments: str) -> str:
    mirror = f"ftp://reader:{CANARY}@127.0.0.1:9/mirror"
    said = left_by("", "-m", "pipelines", *arguments, SEGFOUNDRY_MIRROR=mirror, SEGFOUNDRY_OFFLINE="0")
    assert "mirror" in said
    return said


PLACES: dict[str, Callable[[Path], str]] = {
    "a log record, its error and the error's cause": lambda _: logged(),
    "the reason why a mirror was not asked": lambda path: remote_mirror(path, True),
    "the error of a mirror that does not answer": lambda path: remote_mirror(path, False),
    "the error of a ledger without a database": mlflow_address,
    "an error that quotes a database": lambda _: str(ServiceError(f"cannot open {VARIABLES['SEGFOUNDRY_LEDGER_URL']}")),
    "an error that quotes the decoded password": lambda _: str(ServiceError(f"login with {CANARY}-p@ss failed")),
    "a refused case": lambda _: str(CaseError("r", "e", f"opened with {VARIABLES['MLFLOW_TRACKING_PASSWORD']}")),
    "the traceback of a bug": lambda _: traceback_of_a_bug(),
    "the command line for people": lambda path: command_line("data", "fetch", "BUSI", "--workspace", str(path / "w")),
    "the command line's document": lambda path: command_line(
        "data", "fetch", "BUSI", "--workspace", str(path / "w"), "--json"
    ),
    "what doctor says": lambda _: command_line("doctor", "--json"),
}


@pytest.mark.parametrize("place", PLACES)
def test_a_secret_is_not_in(place: str, tmp_path: Path) -> None:
    said = PLACES[place](tmp_path)
    assert said
    assert CANARY not in said
    for path in tmp_path.rglob("*"):
        if path.is_file():
            assert CANARY.encode() not in path.read_bytes(), path


def test_there_are_ten() -> None:
    assert len(PLACES) >= 10


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("https://host/a?x=1&X-Amz-Signature=abc&y=2", "https://host/a?x=1&X-Amz-Signature=[secret]&y=2"),
        ("az://c/d?sv=1&sig=a%2Fb", "az://c/d?sv=1&sig=[secret]"),
        ("http://u:p@h/x and s3://t@b", "http://[secret]@h/x and s3://[secret]@b"),
        ("write to ann@example.org", "write to ann@example.org"),
        ("https://example.org/a@b?page=2", "https://example.org/a@b?page=2"),
        ("https://h?who=ann@b", "https://h?who=ann@b"),
        ("sqlite:////w/mlflow.db", "sqlite:////w/mlflow.db"),
    ],
)
def test_addresses_stay_readable(text: str, shown: str) -> None:
    assert without_secrets(text) == shown


def test_what_is_no_secret_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAEXAMPLE")
    monkeypatch.setenv("SSH_KEY_FILE", "/home/ann/id_ed25519")
    monkeypatch.setenv("SHORT_TOKEN", "the")
    monkeypatch.setenv("KEYBOARD", "qwertyuiop")
    monkeypatch.setenv("PWD", "/home/ann/work")
    assert not {"/home/ann/work", "AKIAEXAMPLE", "/home/ann/id_ed25519", "the", "qwertyuiop"} & set(
        secrets.secret_values()
    )
    assert json.loads(without_secrets(json.dumps({"a": "the key"}))) == {"a": "the key"}
