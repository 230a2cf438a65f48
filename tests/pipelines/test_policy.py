"""Which failures are tried again: what can pass and what cannot, told apart on errors of services that are gone."""

from __future__ import annotations

import errno
import socket
import ssl

import httpx
import pytest
import sqlalchemy as sa

from infra.errors import CheckFailed, DataError, ServiceError, UsageError
from infra.processes import free_port
from pipelines.flows import policy


def _raised(ask: object) -> BaseException:
    with pytest.raises(Exception) as caught:  # noqa: PT011 - whatever it is, is the point
        ask()  # type: ignore[operator]
    return caught.value


@pytest.mark.parametrize("error", [DataError("x"), UsageError("x"), CheckFailed("x"), ValueError("x"), KeyError("x")])
def test_bad_input_stays_bad(error: Exception) -> None:
    assert not policy.can_pass(error)
    assert policy.explained(error, "stage") is error


def test_what_took_too_long_would_again_and_a_wrong_path_stays_wrong() -> None:
    from prefect.task_engine import TaskRunTimeoutError

    late = TaskRunTimeoutError("a task took longer than its timeout")
    assert isinstance(late, OSError)  # as a socket that is silent, which may answer later
    assert not policy.can_pass(late)
    assert policy.can_pass(TimeoutError("a socket"))
    missing = _raised(lambda: open("/nowhere/at/all"))  # noqa: SIM115
    assert not policy.can_pass(missing)
    for final in (missing, late):
        wrong = ValueError("the value is wrong")
        wrong.__context__ = final
        assert policy.explained(wrong, "stage") is wrong


@pytest.mark.parametrize("error", [ServiceError("x"), OSError(errno.ENOSPC, "full"), ConnectionResetError("x")])
def test_services_disks_and_networks_come_back(error: Exception) -> None:
    assert policy.can_pass(error)


@pytest.mark.parametrize(
    "lost",
    [
        socket.gaierror(socket.EAI_AGAIN, "the name server does not answer"),
        OSError(errno.ENETUNREACH, "no network"),
        OSError(errno.EHOSTUNREACH, "no route"),
        ssl.SSLError("the connection broke off"),
        OSError(errno.ENOSPC, "full"),
        OSError(errno.EIO, "the disk"),
        httpx.ConnectError("refused"),
        httpx.ReadError("broke off"),
    ],
    ids=repr,
)
def test_what_came_from_a_lost_network_or_disk_is_tried_again_whatever_wraps_it(lost: Exception) -> None:
    wrapped = RuntimeError("a library's own error")
    wrapped.__cause__ = lost
    assert policy.can_pass(lost)
    assert policy.can_pass(wrapped)
    assert isinstance(policy.explained(wrapped, "stage"), ServiceError)


def test_an_mlflow_server_that_is_gone_is_a_service_error_that_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR", "0")
    from registry.store import RegistryStore

    error = _raised(lambda: RegistryStore(f"http://127.0.0.1:{free_port()}").versions("nobody"))
    assert policy.can_pass(error), repr(error)
    said = policy.explained(error, "release")
    assert isinstance(said, ServiceError)
    assert str(said).startswith("release: a service does not answer")


def test_a_database_that_is_gone_may_come_back() -> None:
    engine = sa.create_engine(f"postgresql+pg8000://nobody:x@127.0.0.1:{free_port()}/none")
    assert policy.can_pass(_raised(engine.connect))


def test_a_minute_is_bridged_and_not_an_hour() -> None:
    assert 60 <= sum(policy.DELAYS_S) < 600
