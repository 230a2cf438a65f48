"""How long a step of a flow may take, and which failures deserve another try.

Bad input stays bad; a service, the network, a lost worker or the disk may come back.
"""

from __future__ import annotations

from typing import Any

from infra.errors import SegfoundryError, ServiceError, causes
from infra.settings import load_settings

_SETTINGS = load_settings()  # decorators are evaluated once
STAGE_TIMEOUT_S = _SETTINGS.stage_timeout_s
STEP_TIMEOUT_S = _SETTINGS.release_timeout_s
FLOW_TIMEOUT_S = _SETTINGS.flow_timeout_s
RETRIES = _SETTINGS.retries
# 2, 4, 8, 16, 32 s by default: a service that is gone for a minute is waited for
DELAYS_S = [_SETTINGS.retry_delay_s * 2**number for number in range(RETRIES)]

# Known by name, so that neither MLflow nor SQLAlchemy is imported here. MLflow wraps what it could not reach.
_LOST = (
    "ConnectionError",
    "ConnectTimeout",
    "ReadTimeout",
    "MaxRetryError",
    "RemoteProtocolError",
    "TimeoutException",
    "ConnectError",  # httpx's, as the next: no OSErrors
    "NetworkError",
)
_DATABASE = ("OperationalError", "InterfaceError")
# OSErrors of a wrong path, and Prefect's own for a step that took too long: the same again would end the same
_FINAL = (FileNotFoundError, IsADirectoryError, NotADirectoryError, FileExistsError)
_TOO_LONG = ("TaskRunTimeoutError", "FlowRunTimeoutError")


def can_pass(error: BaseException) -> bool:
    """Whether the same step may succeed when it is tried again.

    Errors of our own say so by their class (`infra/errors.py`). Of others: the disk and the network (OSError, but not a
    wrong path), a database that is gone or locked, and any error that came from one of these, as MLflow's do. A step
    that Prefect ended because it took too long would take as long again.
    """
    if isinstance(error, SegfoundryError):
        return isinstance(error, ServiceError)
    if isinstance(error, OSError):
        return _heals(error)
    return any(_is_loss(one) for one in causes(error))


def _names(error: BaseException) -> set[str]:
    return {base.__name__ for base in type(error).__mro__}


def _heals(error: OSError) -> bool:
    if type(error) is OSError and error.errno is None:
        return False  # not the system's word: pyarrow says so of bytes that are no Parquet file
    return not isinstance(error, _FINAL) and not _names(error) & {*_TOO_LONG}


def _is_loss(error: BaseException) -> bool:
    names = _names(error)
    if names & {*_LOST, *_DATABASE} or (isinstance(error, OSError) and _heals(error)):
        return True
    # what MLflow's REST client raises once its own retries are used up
    return "MlflowException" in names and any(f"{name}(" in str(error) for name in _LOST)


def explained(error: BaseException, what: str) -> BaseException:
    """A lost service as a `ServiceError` that says which step met it; any other error as it is."""
    if isinstance(error, SegfoundryError) or not can_pass(error) or isinstance(error, OSError):
        return error
    first = " ".join(str(error).split())[:300]
    msg = f"{what}: a service does not answer: {type(error).__name__}: {first}. `segfoundry stack status` lists them"
    return ServiceError(msg)


def worth_a_retry(_task: Any, _run: Any, state: Any) -> bool:
    """Prefect's question after a failed try."""
    error = state.result(raise_on_failure=False)
    return isinstance(error, BaseException) and can_pass(error)
