"""Prefect's settings for a run: its home in the workspace, telemetry off, a server of its own where none is given.

Prefect reads these at import, so `prepare` comes before the first `import prefect`.
"""

from __future__ import annotations

import os
from pathlib import Path

from infra import services

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
