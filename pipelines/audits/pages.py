"""What an audit found, put on a printable page (`registry.audit_page`)."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from pipelines.audits.changes import REASONS
from pipelines.workspace import Workspace
from preprocessing.leakage import KINDS
from preprocessing.schema import SPLITS
from registry.audit_page import BAD, GOOD, NOTE, Badge, IdList, Page, Section

Document = dict[str, Any]
_MOST_ROWS = 2000  # changed cases on a page; JSON has them all


def footer(place: Workspace) -> str:
    """When and from what the page was made."""
    now = datetime.now(UTC).isoformat(timespec="seconds")
    return f"Made {now} by segfoundry audit from the manifests, git and registry of {place.root}."


def model_page(found: Document, place: Workspace) -> Page:
    """A model: data, cases, parameters, and whether it can be built again."""
    rebuild, withdrawn = found["rebuild"], found["withdrawn_cases"]
    badges = [Badge(f"@{alias}", NOTE) for alias in found["aliases"]] or [Badge("no alias")]
    badges.append(
        Badge("can be rebuilt" if rebuild["possible"] else "cannot be rebuilt", GOOD if rebuild["possible"] else BAD)
    )
    if withdrawn:
        badges.append(Badge(f"withdrawn cases in its data: {len(withdrawn)}", BAD))
    if found["gate"]:
        badges.append(Badge(f"gate: {found['gate']['verdict']}", GOOD if found["gate"]["verdict"] == "pass" else BAD))
    sections = [
        _datasets(found),
        *([_withdrawn(withdrawn)] if withdrawn else []),
        *(
            [
                Section(
                    "Manifests that cannot be read",
                    columns=["dataset", "why"],
                    rows=_rows(found["unread"], "dataset", "why"),
                )
            ]
            if found["unread"]
            else []
        ),
        Section("Files of the version that are gone", columns=["what"], rows=[[one] for one in found["gone"]]),
        Section(
            "Can it be built again?",
            note=rebuild["verdict"],
            columns=["what", "there", "found", "what to do"],
            rows=[[one["what"], one["ok"], one["found"], one["fix"]] for one in rebuild["checks"]],
            bad=[at for at, one in enumerate(rebuild["checks"]) if one["ok"] is False],
        ),
        Section("Command", note="In order, in a shell.", text=rebuild["command"]),
        _history(found["ledger"]),
        Section("Parameters", columns=["name", "value"], rows=sorted(found["parameters"].items())),
        _case_lists(found),
    ]
    return Page(
        eyebrow="What made this model",
        title=f"{found['model']} version {found['version']}",
        badges=badges,
        facts=_model_facts(found),
        sections=[one for one in sections if one.rows or one.text or one.lists],
        footer=footer(place),
    )


def _model_facts(found: Document) -> list[tuple[str, Any]]:
    evaluation = found["evaluation"]
    dice = [evaluation.get(key) for key in ("dice_text_before", "dice_text_after")]
    figures = " → ".join("–" if one is None else f"{one:.3f}" for one in dice)
    terms = [f"{one['of']}: {one['terms']}" for one in found["start_licences"]]
    return [
        ("Data version", f"{found['data_version']} ({found['data_commit'][:12]})"),
        ("Code commit", found["code_commit"]),
        ("Weights, SHA-256", found["weights_sha256"]),
        ("Start weights, SHA-256", found["parent"]["start_sha256"]),
        ("Start weights' terms", "; ".join(terms) or "none of their own"),
        ("Steps, seed", f"{found['steps']}, {found['seed']}"),
        ("Strictest licence", found["strictest_licence"]),
        ("Commercial use / redistribution", f"{found['commercial_use']} / {found['redistribution']}"),
        (f"Dice with text, before → after ({evaluation['split'] or 'its evaluation is gone'})", figures),
        ("Evaluation, digest", evaluation["digest"]),
        ("MLflow run", found["run_id"]),
    ]


def _datasets(found: Document) -> Section:
    rows = []
    for one in found["datasets"]:
        counts = found["cases"].get(one["dataset"], {})
        rows.append(
            [
                *(one[key] for key in ("dataset", "modality", "licence", "source_kind")),
                *(counts.get(split) for split in SPLITS),
                one["samples"],
                one["manifest_digest"][:16],
            ]
        )
    columns = [
        "dataset",
        "modality",
        "licence",
        "source",
        *(f"{split} cases" for split in SPLITS),
        "samples",
        "manifest",
    ]
    note = "It learnt from the train cases, was tuned on those of val and measured on those of test."
    return Section("Data", note=note, columns=columns, rows=rows, right=columns[4:8])


def _withdrawn(rows: Sequence[Document]) -> Section:
    columns = ["dataset", "case_id", "use", "why"]
    return Section("Withdrawn since", columns=columns, rows=_rows(rows, *columns), bad=range(len(rows)))


def _history(entries: Sequence[Document]) -> Section:
    columns = ["position", "at", "actor", "action", "reason"]
    return Section("Ledger", columns=columns, rows=_rows(entries, *columns), right=["position"])


def _case_lists(found: Document) -> Section:
    lists = []
    for dataset in found["cases"]:
        for split in SPLITS:
            own = [one for one in found["case_list"] if (one["dataset"], one["split"]) == (dataset, split)]
            bad = frozenset(one["case_id"] for one in own if one["withdrawn"])
            if own:
                lists.append(IdList(f"{dataset}, {split}", [one["case_id"] for one in own], bad))
    return Section("Every case", lists=lists)


def case_page(found: Document, place: Workspace) -> Page:
    """A patient: where it is and who saw it."""
    columns = ["data_version", "dataset", "case_id", "group_id", "split", "samples"]
    rows = [[*(one[key] for key in columns), ", ".join(one["shards"])] for one in found["places"]]
    models = [
        [one["model"], one["version"], ", ".join(one["aliases"]), one["dataset"], one["use"]] for one in found["models"]
    ]
    newest = found["newest_data_version"]
    live = Badge(f"in {newest}", NOTE) if found["live"] else Badge(f"not in {newest}", GOOD)
    gone = [Badge("withdrawn", BAD)] if found["tombstones"] else []
    sections = [
        Section("Where it is", columns=[*columns, "shards"], rows=rows, right=["samples"]),
        Section("Models that saw it", columns=["model", "version", "aliases", "dataset", "use"], rows=models),
        Section(
            "Withdrawn",
            columns=["at", "actor", "identifier", "reason"],
            rows=_rows(found["tombstones"], "at", "actor", "identifier", "reason"),
        ),
        Section(
            "Versions that cannot be read",
            columns=["data_version", "dataset", "why"],
            rows=_rows(found["unread"], "data_version", "dataset", "why"),
        ),
    ]
    lead = "" if models else "No model of the registry has seen it."
    return Page(
        "Where this case is",
        found["sample"] or found["key"],
        [live, *gone],
        lead,
        (),
        [one for one in sections if one.rows],
        footer(place),
    )


def data_page(found: Document, place: Workspace) -> Page:
    """Two data versions: what changed."""
    used = [reason for reason in REASONS if any(one["counts"].get(reason) for one in found["datasets"])]
    rows = [
        [one["dataset"], one["state"], *(one["counts"].get(reason) for reason in used)] for one in found["datasets"]
    ]
    moved = [at for at, one in enumerate(found["datasets"]) if one["counts"].get("split moved")]
    sections = [
        Section("Cases by dataset and reason", columns=["dataset", "state", *used], rows=rows, right=used, bad=moved,
                note="; ".join(f"{reason}: {REASONS[reason]}" for reason in used)),
        *[_changes(one) for one in found["datasets"] if one["changes"] or one["recipe"] or one["licence"]],
    ]  # fmt: skip
    verdict = (
        Badge("no case moved to another split", GOOD) if found["ok"] else Badge("cases moved to another split", BAD)
    )
    return Page("What changed", f"{found['old']} → {found['new']}", [verdict], "", (), sections, footer(place))


def _changes(one: Document) -> Section:
    rows = [[change["reason"], change["case_id"], change["detail"]] for change in one["changes"][:_MOST_ROWS]]
    rows += [["recipe changed", part["what"], f"{part['from']} → {part['to']}"] for part in one["recipe"]]
    if one["licence"]:
        rows.append(["licence changed", "", f"{one['licence']['from']} → {one['licence']['to']}"])
    more = len(one["changes"]) - _MOST_ROWS
    note = f"{more} more in the JSON" if more > 0 else ""
    bad = [at for at, row in enumerate(rows) if row[0] == "split moved"]
    return Section(one["dataset"], note, ["reason", "case or part", "detail"], rows, bad=bad)


def ledger_page(found: Document, entries: Sequence[Document], place: Workspace) -> Page:
    """The ledger: whether it holds, and every row."""
    holds = Badge("the chain holds", GOOD) if found["ok"] else Badge("the chain does not hold", BAD)
    columns = ["position", "at", "actor", "action", "model", "version", "reason"]
    rows = [[*(one[key] for key in columns), one["hash"][:12]] for one in entries]
    broken = [at for at, one in enumerate(entries) if one["position"] == found["broken_at"]]
    problems = [[problem] for problem in (*found["problems"], *found["drift"])]
    sections = [
        Section("What is wrong", columns=["problem"], rows=problems, bad=range(len(problems))),
        Section("Rows", columns=[*columns, "hash"], rows=rows, right=["position", "version"], bad=broken),
    ]
    shown = [one for one in sections if one.rows]
    return Page("Ledger of promotions", f"{found['entries']} rows", [holds], "", (), shown, footer(place))


def leakage_page(found: Document, place: Workspace) -> Page:
    """What `preprocessing.leakage` found: the same patient or picture on both sides of a split."""
    held = Badge("no crossing", GOOD) if found["ok"] else Badge("patients or pictures on both sides of a split", BAD)
    keys = ["train", "part", "held_out", "split", *KINDS]
    examples = [[one["kind"], *one["samples"], one.get("correlation", one.get("value"))] for one in found["examples"]]
    sections = [
        Section("Crossings", columns=keys, rows=_rows(found["matrix"], *keys), right=KINDS),
        Section("Examples", columns=["kind", "sample", "held out", "correlation or value"], rows=examples),
    ]
    shown = [one for one in sections if one.rows]
    title = f"Leakage within and between {len(found['datasets'])} datasets"
    return Page("Train against held out", title, [held], ", ".join(found["datasets"]), (), shown, footer(place))


def _rows(documents: Sequence[Document], *keys: str) -> list[list[Any]]:
    return [[one.get(key) for key in keys] for one in documents]
