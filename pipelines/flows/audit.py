"""The flow `audit`: every night, whether everything still holds. A finding makes the run fail, with the evidence."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from prefect import flow, task
from prefect.cache_policies import NO_CACHE

from infra.errors import CheckFailed
from pipelines import nightly
from pipelines.flows import artifacts, policy
from pipelines.flows.retrain import COMMON, alone
from pipelines.workspace import Workspace

Document = dict[str, Any]


@task(
    name="audit",
    timeout_seconds=policy.STAGE_TIMEOUT_S,
    retries=policy.RETRIES,
    retry_delay_seconds=policy.DELAYS_S,
    retry_condition_fn=policy.worth_a_retry,
    cache_policy=NO_CACHE,
    persist_result=False,
)
def audit_task(workspace: str) -> Document:
    """All checks of `pipelines.nightly`."""
    return nightly.audit(Workspace(Path(workspace)))


@flow(name="audit", flow_run_name="audit", **COMMON)
def audit(workspace: str) -> Document:
    """Every shard against its hash, the ledger's chain, leakage, and what belongs to nothing.

    Raises CheckFailed where something does not hold: Prefect's page shows the run as failed.
    """
    with alone(workspace, "audit", clean=False):  # what a kill left is a finding
        try:
            document = audit_task(workspace)
        except nightly.Unanswered as error:  # no try is left: what the other checks found is told all the same
            document = error.document
        nightly.keep(Workspace(Path(workspace)), document)
        artifacts.audit(document)
    if not document["ok"]:
        raise AuditFailed(document)
    return document


class AuditFailed(CheckFailed):
    """The audit ran and found something; `document` says what."""

    def __init__(self, document: Document) -> None:
        lines = [f"{name}: {one}" for name, check in document["checks"].items() for one in check["findings"]]
        super().__init__("the audit does not hold:\n" + "\n".join(lines))
        self.document = document

    def __reduce__(self) -> tuple[Any, ...]:
        return (type(self), (json.loads(json.dumps(self.document)),))
