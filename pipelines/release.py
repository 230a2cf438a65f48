"""Candidate → registered version → gate → alias → report. Every step knows what is already done."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pyarrow.compute as pc
import pyarrow.parquet as pq

from infra import repository
from infra.dvc import DataVersion
from infra.errors import CheckFailed, DataError, ServiceError, UsageError
from infra.settings import load_settings
from infra.storage import read_json
from pipelines.gates import leakage
from pipelines.workspace import MODEL_NAME, PROJECT, Workspace
from preprocessing.schema import DATASET_FILE, MANIFEST_FILE, QUARANTINE_FILE, read_dataset_file
from preprocessing.schema.pixels import decode
from preprocessing.withdrawn import read_tombstones, withdrawn_in
from registry.gate import GateReport, RuleResult
from registry.intents import CHAMPION, AliasesMoved
from registry.judging import judge as judge_version
from registry.ledger import default_actor
from registry.lineage import TAG, Lineage, build_lineage, describe_dataset
from registry.moved import check_aliases
from registry.packaging import Example
from registry.predictor import coloured
from registry.promote import ApprovalNeeded, promote, reconcile
from registry.report import write_report
from registry.store import Registered, RegistryStore
from registry.webhooks import Webhook

Document = dict[str, Any]


def open_store(workspace: Workspace) -> RegistryStore:
    """The registry of a workspace."""
    settings = load_settings()
    url = settings.webhook_url.get_secret_value()
    return RegistryStore(
        workspace.tracking_uri,
        workspace.artifact_root,
        ledger_url=settings.ledger_url or None,
        temporary=workspace.temporary,
        webhook=Webhook(url, settings.webhook_secret.get_secret_value()) if url else None,
    )


def release(workspace: Workspace) -> Document:
    """Register, judge, promote and report what the workspace holds; returns the outcome document.

    A gate that blocks is an outcome, not an error: `gate.verdict` says so and the champion stays. So is one that
    passes and waits for a person, which "waits" tells, and so are aliases that somebody moved by hand: nothing is
    judged against them, and the one rule of the gate's report says what to do. For who holds the run lock.
    """
    started = time.monotonic()
    # The caller holds the run lock. A kill after the last ingest may have left its data untagged.
    workspace.repo.tag_data_version()
    store = open_store(workspace)
    registered = register(workspace, store)
    known = store.resolve(registered.name, registered.version).tags.get(f"{TAG}gate_digest")
    moved, promotion, waits = False, False, ""
    try:
        reconcile(store, registered.name)  # what a crash left, before the gate compares with a champion that is none
        check_aliases(store, registered.name)
        gate = judge(workspace, store, registered.version)
        promotion, waits = _promote(store, registered, gate)
    except AliasesMoved as error:
        gate, moved = _not_judged(workspace, str(error)), True
    workspace.note_seconds("phase register and gate", time.monotonic() - started)
    started = time.monotonic()
    outcome = {**document(workspace, store, registered, gate), "waits_for_approval": bool(waits), "waits": waits}
    report = workspace.reports / f"{registered.version}.html"
    outcome["report"] = str(report)
    # a report that says how a version was judged is not replaced by one that says that it cannot be now
    judged_anew = not moved and gate.digest != known
    if registered.created or promotion or judged_anew or not report.is_file():
        workspace.note_seconds("phase report", 0.0)
        _write_report(workspace, report, outcome, gate)
        store.log_report(registered, report)
        workspace.note_seconds("phase report", time.monotonic() - started)
    outcome["changed"] = registered.created or promotion
    return outcome


def register(workspace: Workspace, store: RegistryStore, evaluation: Path | None = None) -> Registered:
    """Register the candidate with everything that is known about it; the same candidate again changes nothing.

    `evaluation` is another evaluation folder of the candidate than the stage's, e.g. one against the champion.
    """
    measured = evaluation or workspace.evaluation
    for folder, verb in ((workspace.candidate / "train.json", "train"), (measured / "evaluation.json", "evaluate")):
        if not folder.exists():
            msg = f"{folder}: expected the candidate and its evaluation, found none. Run: segfoundry {verb}"
            raise UsageError(msg)
    return store.register(
        workspace.candidate,
        measured,
        lineage(workspace, store, measured),
        read_json(workspace.candidate / "train.json"),
        model_name=MODEL_NAME,
        example=example(workspace),
        serving=serving(workspace),
    )


def judge(workspace: Workspace, store: RegistryStore, version: int | str) -> GateReport:
    """The gate's verdict on a version. The champion keeps the verdict it was promoted with.

    Data that is in no version yet is not tagged here: a run at work may have made half of it.
    """
    rules = workspace.params().gate.rules()
    newest, changed = _newest(workspace)
    return judge_version(
        store,
        MODEL_NAME,
        version,
        rules,
        current_data_version=newest.tag if newest else "",
        data_changed=changed,
        leakage=leakage(workspace, _made(workspace)) if rules["leakage_clean"] else None,
        withdrawn=withdrawn(workspace),
    )


def withdrawn(workspace: Workspace) -> dict[str, set[str]]:
    """Dataset -> the cases and groups that tombstones name or that builds kept out because of one.

    A case that only shows what a withdrawn one shows has no tombstone of its own; its dataset's quarantine names it.
    """
    found: dict[str, set[str]] = {}
    for stone in read_tombstones(workspace.tombstones):
        found.setdefault(stone.dataset, set()).add(stone.identifier)
    for name in _made(workspace) if found else []:
        found.setdefault(name, set()).update(withdrawn_in(workspace.data / name / QUARANTINE_FILE))
    return found


def _made(workspace: Workspace) -> list[str]:
    """The datasets that there is a version of."""
    return [name for name in workspace.params().datasets if (workspace.data / name / DATASET_FILE).is_file()]


def _promote(store: RegistryStore, registered: Registered, gate: GateReport) -> tuple[bool, str]:
    """Whether the version was made champion, and what it waits for where only a person can do that."""
    reason = "the candidate passed the gate" if gate.passed else "the gate blocks the candidate"
    actor = default_actor()
    try:
        done = promote(
            store, registered.name, registered.version, gate=gate, actor=actor, reason=reason, unattended=True
        )
    except ApprovalNeeded as waits:
        return False, str(waits)
    except CheckFailed:
        if gate.passed:  # then it was not the gate: another promotion came first
            raise
        return False, ""
    return done.changed, ""


def _not_judged(workspace: Workspace, why: str) -> GateReport:
    weights = str(read_json(workspace.candidate / "train.json")["weights_sha256"])
    return GateReport("block", (RuleResult("aliases", None, None, False, why),), weights, None)


def lineage(workspace: Workspace, store: RegistryStore, evaluation: Path) -> Lineage:
    """What made the candidate, and what it was measured on."""
    version = _data_version(workspace)
    train = read_json(workspace.candidate / "train.json")
    measured = read_json(evaluation / "evaluation.json").get("manifest_digests") or {}
    external = sorted(name for name in set(measured) - set(train["datasets"]) if (workspace.data / name).is_dir())
    return build_lineage(
        workspace.candidate,
        evaluation,
        [describe_dataset(workspace.data / name) for name in [*train["datasets"], *external]],
        data_version=version.tag,
        data_commit=version.commit,
        code_commit=code_commit(),
        params=workspace.params().model_dump(mode="json"),
        parent=_parent(store, train),
    )


def _newest(workspace: Workspace) -> tuple[DataVersion | None, bool]:
    """The newest data version, and whether the data is another than that and in no version yet."""
    newest = workspace.repo.data_version()
    return newest, newest is None or newest.digest != workspace.repo.data_digest()


def _data_version(workspace: Workspace) -> DataVersion:
    """The newest data version, which must hold the data as it is. UsageError where it does not."""
    newest, changed = _newest(workspace)
    if newest is None or changed:
        since = f"has changed since {newest.tag} and is in no version" if newest else "is in no version yet"
        msg = (
            f"{workspace.root}: expected data that a version holds, found that it {since}. Where a run is at work, "
            "wait for it; else: segfoundry data ingest, then train and evaluate again"
        )
        raise UsageError(msg)
    return newest


def _parent(store: RegistryStore, train: Document) -> str | None:
    """The registered version whose weights the candidate started from, as "NAME/3"; None where it is none of ours."""
    start = {train["start_sha256"], (train.get("start") or {}).get("sha256")} - {None, "", train["weights_sha256"]}
    found = next((one for one in store.versions(MODEL_NAME) if one.weights_sha256 in start), None)
    return f"{found.name}/{found.version}" if found else None


def serving(workspace: Workspace) -> Document:
    """How the datasets of the candidate were read, for whoever serves it: see `preprocessing.serving`."""
    said = {}
    for name in read_json(workspace.candidate / "train.json")["datasets"]:
        recipe = workspace.recipe(name)
        card = read_json(recipe)["card"] if recipe.is_file() else {}
        said[name] = {
            "modality": card.get("modality"),
            "samples": read_dataset_file(workspace.data / name)["splits"].get("train", 0),
            **{fact: card[fact] for fact in ("intensity", "axes", "spacing_mm_zyx", "frame") if card.get(fact)},
        }
    return {"orientation": workspace.params().harmonize.orientation, "datasets": said}


def code_commit() -> str:
    """The commit of this checkout, marked where it has changes; "unknown" outside of git."""
    if not (PROJECT / ".git").exists():
        return "unknown"
    try:
        commit = repository.git(PROJECT, "rev-parse", "HEAD")
        changed = repository.git(PROJECT, "status", "--porcelain", "--untracked-files=no")
    except ServiceError:  # e.g. a checkout of another user, which git refuses to read
        return "unknown"
    return f"{commit}-changed" if changed else commit


def example(workspace: Workspace) -> Example:
    """The first test sample of the first dataset that has one, as input example of the model."""
    for name in workspace.params().datasets:
        folder = workspace.data / name
        with pq.ParquetFile(folder / MANIFEST_FILE) as manifest:
            for batch in manifest.iter_batches(1024, columns=["split", "shard", "row", "objects"]):
                for row in batch.filter(pc.equal(batch["split"], "test")).to_pylist():
                    if row["objects"]:
                        shard = pq.read_table(folder / row["shard"], columns=["image"])
                        image = coloured(decode(shard["image"][row["row"]].as_py()))
                        return image, sorted({item["concept"] for item in row["objects"]})
    msg = f"{workspace.data}: expected a test sample with an object, found none in any dataset"
    raise DataError(msg)


def document(workspace: Workspace, store: RegistryStore, registered: Registered, gate: GateReport) -> Document:
    """What `segfoundry demo --json` says about the release."""
    evaluation = read_json(workspace.evaluation / "evaluation.json")
    summary = evaluation["summary"]
    chosen = store.resolve(registered.name, registered.version)
    return {
        "datasets": dataset_rows(workspace, evaluation),
        "dice_text_before": summary["dice_text_before"],
        "dice_text_after": summary["dice_text_after"],
        "score_absent": summary["score_absent"],
        "summary": summary,
        "model": {
            "name": registered.name,
            "version": registered.version,
            "alias": next((alias for alias in (CHAMPION, *chosen.aliases) if alias in chosen.aliases), ""),
        },
        "gate": gate.to_dict(),
        "data_version": _data_version(workspace).tag,
    }


def dataset_rows(workspace: Workspace, evaluation: Document | None) -> list[Document]:
    """One row a dataset of `params.yaml`: counts from the data, figures from the evaluation."""
    roots = workspace.roots()
    figures = (evaluation or {}).get("datasets", {})
    rows = []
    for name in workspace.params().datasets:
        try:
            dataset = read_dataset_file(workspace.data / name)
        except FileNotFoundError:
            dataset = {}
        counts = dataset.get("counts", {})
        rows.append(
            {
                "name": name,
                "modality": dataset.get("modality"),
                "source": dataset.get("source_kind") or roots.get(name, {}).get("kind"),
                "reason": roots.get(name, {}).get("reason"),
                "external": bool(dataset.get("evaluation_only")),
                "samples": counts.get("samples"),
                "quarantined": counts.get("cases_quarantined"),
                "dice_before": figures.get(name, {}).get("dice_text_before"),
                "dice_after": figures.get(name, {}).get("dice_text_after"),
            }
        )
    return rows


def _write_report(workspace: Workspace, target: Path, outcome: Document, gate: GateReport) -> None:
    datasets = [
        {**read_dataset_file(workspace.data / row["name"]), "source_reason": row["reason"]}
        for row in outcome["datasets"]
    ]
    here = f"--workspace {workspace.root}"
    write_report(
        target,
        evaluation=workspace.evaluation,
        candidate=workspace.candidate,
        datasets=datasets,
        phases=phases(workspace),
        gate=gate,
        model={**outcome["model"], "data_version": outcome["data_version"], "code_commit": code_commit()},
        links={
            "MLflow and Prefect pages": f"segfoundry stack up {here}",
            "What made this model": f"segfoundry audit model {outcome['model']['version']} {here}",
        },
    )


PHASES = (
    "sources",
    "start Prefect",
    "start Ray",
    "ingest",
    "version",
    "train",
    "evaluate",
    "register and gate",
    "report",
)


def phases(workspace: Workspace) -> dict[str, float]:
    """Seconds of the latest run by phase, in the order in which they happen."""
    known = workspace.seconds()
    return {name: known[f"phase {name}"] for name in PHASES if f"phase {name}" in known}
