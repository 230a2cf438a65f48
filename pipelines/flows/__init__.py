"""The Prefect flows: ingest, train, evaluate, promote, retrain and audit.

Importing `pipelines.flows.retrain` or `.audit` imports Prefect: call `orchestration.prepare` first.
"""

NAMES = ("retrain", "ingest", "train", "evaluate", "promote", "audit")
