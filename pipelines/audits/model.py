"""What made a model: its cases by name, and whether it can be built again."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from infra.errors import ServiceError, UsageError
from pipelines.audits import rebuild
from pipelines.audits.record import Record
from pipelines.workspace import MODEL_NAME
from preprocessing.schema import DATASET_FILE, MANIFEST_FILE, SPLITS
from preprocessing.withdrawn import Tombstone, read_tombstones
from registry.audit import USES, audit_model
from registry.store import RegistryStore

Document = dict[str, Any]
CASE_COLUMNS = ("dataset", "case_id", "group_id", "split", "samples", "withdrawn")


def named(text: str) -> tuple[str, str]:
    """Model and version or alias of `NAME@alias`, `models:/NAME/V`, `models:/NAME@alias`, `NAME/V`, or just the last.

    UsageError for anything else.
    """
    plain = text.removeprefix("models:").strip("/")
    name, sign, version = plain.partition("@") if "@" in plain else plain.partition("/")
    if not sign:
        name, version = MODEL_NAME, plain
    if not name:
        name = MODEL_NAME
    if not version or "/" in version or "@" in version:
        msg = f"model: expected NAME@alias, models:/NAME/version, a version or an alias, found {text!r}"
        raise UsageError(msg)
    return name, version


def audit(record: Record, store: RegistryStore, name: str, version: str) -> Document:
    """`registry.audit.audit_model` with "cases", "case_list", "withdrawn_cases" and "rebuild".

    "cases" counts by dataset and split; "case_list" has a row of `CASE_COLUMNS` for each case, sorted, whose
    "withdrawn" says by which tombstone it is, or is empty. "unread" names datasets whose manifest is gone.
    """
    found = audit_model(store, name, version)
    stones = read_tombstones(record.place.tombstones)
    cases: list[Document] = []
    unread: list[Document] = []
    where: dict[str, str] = {}
    for dataset, digest in found["manifest_digests"].items():
        try:
            where[dataset] = revision_of(record, dataset, digest, str(found["data_version"]))
            manifest = record.file(dataset, where[dataset], MANIFEST_FILE)
            cases += [{**row, "withdrawn": _why(stones, row)} for row in cases_in(dataset, manifest)]
        except ServiceError as error:
            unread.append({"dataset": dataset, "why": str(error)})
    withdrawn = [
        {key: one[key] for key in ("dataset", "case_id", "group_id", "split")}
        | {"use": USES[one["split"]], "why": one["withdrawn"]}
        for one in cases
        if one["withdrawn"]
    ]
    return {
        **found,
        "cases": {dataset: _counts(cases, dataset) for dataset in sorted({one["dataset"] for one in cases})},
        "case_list": cases,
        "withdrawn_cases": withdrawn,
        "unread": unread,
        "rebuild": rebuild.answer(record, found, where, withdrawn),
    }


def revision_of(record: Record, dataset: str, digest: str, said: str) -> str:
    """The data version whose `dataset` has a manifest of that digest: the one that is `said`, else the newest.

    ServiceError where none has.
    """
    for tag in [*([said] if said in record.tags else []), *reversed(record.tags)]:
        if dataset not in record.datasets(tag):
            continue
        if DATASET_FILE in record.files(dataset, tag) and record.told(dataset, tag)["manifest_digest"] == digest:
            return tag
    msg = f"{dataset}: expected its manifest {digest[:12]} in a data version of {record.place.root}, found none"
    raise ServiceError(msg)


def cases_in(dataset: str, manifest: Any) -> list[Document]:
    """A row for each case of a manifest file: dataset, case_id, group_id, split, samples; sorted by case."""
    columns = ["case_id", "group_id", "split"]
    table = pq.read_table(manifest, columns=columns, read_dictionary=columns).unify_dictionaries()
    counted = table.append_column("one", pa.repeat(1, table.num_rows)).group_by(columns).aggregate([("one", "sum")])
    rows = zip(*(counted.column(name).to_pylist() for name in (*columns, "one_sum")), strict=True)
    keys = (*columns, "samples")
    return [{"dataset": dataset, **dict(zip(keys, row, strict=True))} for row in sorted(rows)]


def _counts(cases: list[Document], dataset: str) -> dict[str, int]:
    counted = Counter(one["split"] for one in cases if one["dataset"] == dataset)
    return {split: counted[split] for split in SPLITS}


def _why(stones: list[Tombstone], row: Document) -> str:
    for stone in stones:
        if stone.dataset == row["dataset"] and stone.identifier in (row["case_id"], row["group_id"]):
            return f"{stone.at[:10]}, {stone.actor}: {stone.reason}"
    return ""
