"""Prefect's settings for a run: its home in the workspace, telemetry off, a server of its own where none is given.

Prefect reads these at import, so `prepare` comes before the first `import prefect`.
"""

from __future__ import annotations

import os
from pathlib import Path

from infra import services
from infra.errors import ServiceError
from infra.processes import holds_lock

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
    # 2 + 4 + … + 64 s: a server that is gone for a minute or two does not cost a run that takes hours
    "PREFECT_CLIENT_MAX_RETRIES": "6",
    # MLflow's client waits 2, 4, … s as well; what then fails is tried again by the flow
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "5",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "60",
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


def start(state: Path, workspace: str) -> list[str]:
    """Start this run's own server and close what killed runs in the workspace left open there; returns their names.

    Call it after `prepare`. Under the workspace's run lock no other run works in the workspace but those that wait for
    the lock, which say that they live; without it, one that has just begun gets time to say so. A server of the
    user's own is left alone.
    """
    own = services.status(state).get("prefect", {}).get("api", "")
    if os.environ.get("PREFECT_API_URL", "") not in ("", own):
        return []
    from httpx import HTTPError
    from prefect.client.orchestration import get_client

    from pipelines.flows.closing import NO_RECORD_GRACE_S, close_dead

    try:
        with get_client(sync_client=True) as client:
            grace_s = 0.0 if holds_lock(state) else NO_RECORD_GRACE_S
            return [run.name for run, _ in close_dead(client, state, workspace, grace_s=grace_s)]
    except (HTTPError, RuntimeError) as error:
        msg = f"Prefect's server does not start or answer: {error}. `segfoundry doctor` says more."
        raise ServiceError(msg) from error
