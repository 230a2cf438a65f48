"""The pages of a workspace: an MLflow and a Prefect server in the background, on free local ports.

What was started is recorded with process id and start time; only that is ever ended.
"""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from infra.errors import ServiceError
from infra.processes import end, find, free_port, identify, wait_for_port
from infra.storage import read_json, write_json

SERVICES_FILE = "services.json"
START_TIMEOUT_S = 120.0
_QUIET = {
    "DO_NOT_TRACK": "1",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",  # three processes fewer, half the start time
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_SHOW_BANNER": "false",
}


@dataclass(frozen=True)
class Service:
    """How to start one server. `{port}` in the command is replaced by the port."""

    name: str
    command: tuple[str, ...]
    environment: dict[str, str]
    api_suffix: str = ""


def mlflow_service(tracking_uri: str, artifact_root: Path) -> Service:
    """An MLflow server over the workspace's own database and files.

    The database's address goes through the environment: it may hold a password, and everybody sees a command line.
    """
    command = (
        *(sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", "{port}", "--workers", "1"),
        *("--default-artifact-root", artifact_root.resolve().as_uri()),
    )
    return Service("mlflow", command, {"MLFLOW_BACKEND_STORE_URI": tracking_uri})


def prefect_service(home: Path) -> Service:
    """A Prefect server over the database in `home`; its pages know the API by the chosen port."""
    command = (sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", "{port}")
    environment = {"PREFECT_HOME": str(home), "PREFECT_UI_API_URL": "http://127.0.0.1:{port}/api"}
    return Service("prefect", command, environment, api_suffix="/api")


def up(state: Path, services: list[Service]) -> dict[str, dict[str, Any]]:
    """Start the services that do not run yet; returns `status`. One that fails ends what this call started."""
    known = _running(state)
    started: list[dict[str, Any]] = []
    for service in services:
        if service.name in known:
            continue
        record = _start(state, service)
        if record is None:
            end(started)
            log = log_file(state, service.name)
            tail = "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-5:])
            msg = (
                f"the {service.name} server does not start within {START_TIMEOUT_S:.0f} s; last lines of {log}:\n{tail}"
            )
            raise ServiceError(msg)
        started.append(record)
        known[service.name] = record
        write_json(state / SERVICES_FILE, known)
    return status(state)


def _start(state: Path, service: Service) -> dict[str, Any] | None:
    port = free_port()
    log = log_file(state, service.name)
    log.parent.mkdir(parents=True, exist_ok=True)
    own = {name: value.format(port=port) for name, value in service.environment.items()}
    # A server never asks another one: the address in the user's environment is for clients.
    inherited = {name: value for name, value in os.environ.items() if name != "PREFECT_API_URL"}
    with log.open("ab") as output:
        process = psutil.Popen(
            [part.format(port=port) for part in service.command],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env={**inherited, **_QUIET, **own},
            start_new_session=True,
        )
    record = {**identify(process), "port": port, "url": f"http://127.0.0.1:{port}", "api_suffix": service.api_suffix}
    # Recorded before it listens: a kill of this process must not lose it.
    write_json(state / SERVICES_FILE, {**_running(state), service.name: record})
    if wait_for_port(port, process, START_TIMEOUT_S):
        return record
    _end_families([record])
    return None


def down(state: Path) -> list[str]:
    """End the recorded services and their children; returns what was ended."""
    records = list(_running(state).values())
    ended = _end_families(records)
    (state / SERVICES_FILE).unlink(missing_ok=True)
    return ended


def _end_families(records: list[dict[str, Any]]) -> list[str]:
    family = []
    for record in records:
        process = find(record)
        if process is not None:
            family += [identify(child) for child in process.children(recursive=True)]
    return end(records) + end(family)


def status(state: Path) -> dict[str, dict[str, Any]]:
    """Service -> {"url", "api", "pid"} of those that run."""
    return {
        name: {"url": record["url"], "api": record["url"] + record["api_suffix"], "pid": record["pid"]}
        for name, record in _running(state).items()
    }


def log_file(state: Path, name: str) -> Path:
    """Where a service's output goes."""
    return state / "logs" / f"{name}.log"


def _running(state: Path) -> dict[str, dict[str, Any]]:
    path = state / SERVICES_FILE
    records: dict[str, dict[str, Any]] = read_json(path) if path.is_file() else {}
    return {name: record for name, record in records.items() if find(record) is not None}
