"""What `flow serve` says when it cannot begin: the server's faults as the server's, others as what they are."""

from __future__ import annotations

import threading
from pathlib import Path

import httpx
import pytest

from infra.errors import DataError, SegfoundryError, ServiceError, UsageError
from pipelines import serve
from pipelines.workspace import Workspace

PLAN = serve.Plan("", "", "UTC", "", 60.0, 60.0)


def _begin(root: Path, monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    async def fails(place: Workspace, plan: serve.Plan, say: object, served: threading.Event) -> None:
        raise error

    monkeypatch.setattr(serve, "_serve", fails)
    monkeypatch.setenv("PREFECT_API_URL", "http://prefect.example/api")
    serve.serve(Workspace(root), PLAN, lambda line: None)


def _unreachable() -> Exception:
    """As Prefect's client says that nobody is there."""
    error = RuntimeError("Failed to reach API at http://prefect.example/api")
    error.__cause__ = httpx.ConnectError("refused")
    return error


def _missing() -> Exception:
    from prefect.exceptions import ObjectNotFound

    return ObjectNotFound(httpx.HTTPError("404"))


@pytest.mark.parametrize("made", [_unreachable, _missing, lambda: httpx.ReadTimeout("silent")])
def test_what_the_server_does_not_take_is_said_of_the_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, made: object
) -> None:
    with pytest.raises(ServiceError, match=r"http://prefect\.example/api does not take the flows"):
        _begin(tmp_path, monkeypatch, made())  # type: ignore[operator]


@pytest.mark.parametrize(
    "error", [DataError("a card is torn"), UsageError("no cron"), ServiceError("MLflow"), KeyError("a bug")]
)
def test_any_other_fault_stays_what_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    with pytest.raises((SegfoundryError, KeyError)) as caught:
        _begin(tmp_path, monkeypatch, error)
    assert caught.value is error
