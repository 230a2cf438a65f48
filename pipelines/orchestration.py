"""Prefect's settings for a run: its home in the workspace, telemetry off, a server of its own where none is given.

Prefect reads these at import, so `prepare` comes before the first `import prefect`.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from infra import services
from infra.errors import ServiceError

_QUIET = {
    "DO_NOT_TRACK": "1",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    # the pages keep the logs; on the terminal, one clear message of ours is enough
    "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "CRITICAL",
    "PREFECT_LOGGING_LEVEL": "INFO",
    "PREFECT_LOGGING_SERVER_LEVEL": "ERROR",
    "PREFECT_CLI_PROMPT": "false",
    "PREFECT_SHOW_BANNER": "false",
    # a busy 2-core machine needs more than the 20 s that Prefect waits for its own server
    "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",
}


def home(state: Path) -> Path:
    """Prefect's folder of a workspace: its database, so that runs are seen in later servers too."""
    return state / "prefect"


def prepare(state: Path) -> None:
    """Set the environment for this process and its children; what the user has set stays."""
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)
    os.environ.setdefault("PREFECT_HOME", str(home(state)))
    Path(os.environ["PREFECT_HOME"]).mkdir(parents=True, exist_ok=True)
    running = services.status(state).get("prefect")  # of `segfoundry stack up`
    if running:
        os.environ.setdefault("PREFECT_API_URL", running["api"])
    # With a URL in the environment a missing server fails fast; without one, a server is started for this run.
    ephemeral = "false" if os.environ.get("PREFECT_API_URL") else "true"
    os.environ.setdefault("PREFECT_SERVER_EPHEMERAL_ENABLED", ephemeral)


def start(state: Path, flow: str, workspace: str) -> list[str]:
    """Start this run's own server and close what killed runs of `flow` left open there; returns their names.

    Call it after `prepare`, under the workspace's run lock: then no other run of the flow works in the workspace,
    and one that the server still calls running was killed. A server of the user's own is left alone.
    """
    own = services.status(state).get("prefect", {}).get("api", "")
    if os.environ.get("PREFECT_API_URL", "") not in ("", own):
        return []
    from httpx import HTTPError
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import FlowFilter, FlowFilterName, FlowRunFilter, FlowRunFilterState
    from prefect.client.schemas.filters import FlowRunFilterStateType as StateFilter
    from prefect.client.schemas.objects import State, StateType
    from prefect.states import Crashed

    try:
        with get_client(sync_client=True) as client:
            open_runs = client.read_flow_runs(
                flow_filter=FlowFilter(name=FlowFilterName(any_=[flow])),
                flow_run_filter=FlowRunFilter(state=FlowRunFilterState(type=StateFilter(any_=[StateType.RUNNING]))),
            )
            dead = [run for run in open_runs if run.parameters.get("workspace") == workspace]
            for run in dead:
                ended: State[Any] = Crashed(message="its process was killed")
                client.set_flow_run_state(run.id, ended, force=True)
    except (HTTPError, RuntimeError) as error:
        msg = f"Prefect's server does not start or answer: {error}. `segfoundry doctor` says more."
        raise ServiceError(msg) from error
    return [run.name for run in dead]
