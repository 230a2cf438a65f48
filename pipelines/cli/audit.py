"""`segfoundry audit model|case|data|withdrawn|purge|ledger`: what made a model, where a case went, what still holds."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from pipelines.cli.output import HtmlOption, JsonOption, WorkspaceOption, found_failure, show, table

app = typer.Typer(
    no_args_is_help=True, help="Proof: what made a model, where a case went, whether files and ledger hold."
)
YesOption = Annotated[bool, typer.Option("--yes", help="Do not ask before deleting.")]
HeadOption = Annotated[
    str, typer.Option("--head", metavar="HASH", help="A head noted down before: it must still be a row of the chain.")
]


def _open(option: Any) -> tuple[Any, Any]:
    from infra.settings import resolve_workspace
    from pipelines.release import open_store
    from pipelines.workspace import Workspace

    place = Workspace.existing(resolve_workspace(option, "default"))
    return place, open_store(place)


@app.command()
def model(
    version: Annotated[
        str, typer.Argument(metavar="MODEL", help="NAME@alias, models:/NAME/3, or a version or alias of the default.")
    ] = "champion",
    html: HtmlOption = None,
    csv: Annotated[
        Path | None, typer.Option("--csv", metavar="FILE", help="Also write every case, a line each, as CSV.")
    ] = None,
    workspace: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Which cases, data, licences, code and parameters made a version, and whether it can be built again.

    Cases that were withdrawn since are named. Every ingredient of a rebuild is looked for: code commit, lock file,
    data tag, DVC objects in cache or remote, recipe, start weights. The list of all cases is in --json, --html, --csv.
    Example: `segfoundry audit model segfoundry-sam3@champion --html model.html`
    """
    from pipelines.audits import model as answers
    from pipelines.audits.pages import model_page
    from pipelines.audits.record import open_record
    from preprocessing.schema import SPLITS
    from registry.audit_page import write_page

    place, store = _open(workspace)
    with open_record(place) as record:
        found = answers.audit(record, store, *answers.named(version))
    if csv:
        _write_csv(csv, answers.CASE_COLUMNS, found["case_list"])
    if html:
        write_page(html, model_page(found, place))
    keys = ("dataset", "modality", "source_kind", "licence", "samples")
    rows = [
        [
            *(one[key] for key in keys),
            *(found["cases"].get(one["dataset"], {}).get(split) for split in SPLITS),
            one["manifest_digest"][:12],
        ]
        for one in found["datasets"]
    ]
    columns = [
        "dataset",
        "modality",
        "source",
        "licence",
        "samples",
        *(f"{split} cases" for split in SPLITS),
        "manifest",
    ]
    checks = [[one["what"], _yes(one["ok"]), one["found"], one["fix"]] for one in found["rebuild"]["checks"]]
    withdrawn = [[one["dataset"], one["case_id"], one["use"], one["why"]] for one in found["withdrawn_cases"]]
    show(
        found,
        f"{found['model']} version {found['version']} ({', '.join(found['aliases']) or 'no alias'})",
        f"data version {found['data_version']} ({found['data_commit'][:12]}), code {found['code_commit'][:12]}, "
        f"strictest licence: {found['strictest_licence']}; commercial use: {found['commercial_use']}; "
        f"redistribution: {found['redistribution']}",
        table("", columns, rows, right=tuple(columns[4:8])),
        f"weights {found['weights_sha256'][:12]} from start {found['parent']['start_sha256'][:12]}, "
        f"{found['steps']} steps, seed {found['seed']}",
        f"gate: {found['gate']['verdict'] if found['gate'] else 'not judged'}",
        *([table("Withdrawn since", ["dataset", "case", "use", "why"], withdrawn)] if withdrawn else []),
        *[f"{one['dataset']}: {one['why']}" for one in found["unread"]],
        *[f"gone: {one}" for one in found["gone"]],
        table("Can it be built again?", ["what", "there", "found", "what to do"], checks),
        found["rebuild"]["verdict"],
        f"{'build it again' if found['rebuild']['possible'] else 'what made it'}:\n{found['rebuild']['command']}",
        *_written(html, csv),
    )


@app.command()
def case(
    key: Annotated[
        str, typer.Argument(metavar="KEY", help="dataset/case_id, a group id, a sample id, or an original name.")
    ],
    html: HtmlOption = None,
    workspace: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Every data version, split, shard and model that a patient is in. An unknown key: exit code 2 and near names.

    For closed datasets manifests hold pseudonyms; the name that a patient, case or file had before is understood where
    the pseudonym key or `.segfoundry/names/` of this machine knows it, and is never written out.
    Example: `segfoundry audit case BUSI/benign__1_`
    """
    from pipelines.audits import case as answers
    from pipelines.audits.pages import case_page
    from pipelines.audits.record import open_record
    from registry.audit_page import write_page

    place, store = _open(workspace)
    with open_record(place) as record:
        found = answers.audit(record, store, key)
    if html:
        write_page(html, case_page(found, place))
    columns = ["data_version", "dataset", "case_id", "group_id", "split", "samples"]
    rows = [[*(one[column] for column in columns), _few(one["shards"])] for one in found["places"]]
    models = [
        [one["model"], one["version"], ", ".join(one["aliases"]), one["dataset"], one["use"]] for one in found["models"]
    ]
    stones = [f"withdrawn on {one['at'][:10]} by {one['actor']}: {one['reason']}" for one in found["tombstones"]]
    newest = found["newest_data_version"]
    show(
        found,
        table(f"Where {found['key']} is", [*columns, "shards"], rows, right=("samples",)),
        table("Who saw it", ["model", "version", "aliases", "dataset", "use"], models)
        if models
        else "no model has seen it",
        *stones,
        *[f"{one['dataset']} of {one['data_version']} cannot be read: {one['why']}" for one in found["unread"]],
        f"{'in' if found['live'] else 'not in'} the newest data version, {newest}",
        *_written(html),
    )


@app.command()
def data(
    first: Annotated[
        str, typer.Argument(metavar="[REV_A|DATASET]", help="A data version, or one dataset to verify; default: all.")
    ] = "",
    second: Annotated[str, typer.Argument(metavar="[REV_B]", help="Another data version; default: the newest.")] = "",
    html: HtmlOption = None,
    workspace: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """With data versions: what changed between them, by dataset and reason. Else: read every shard again and verify it.

    Reasons: added, released, removed, withdrawn, quarantined, relabelled, pixels changed, split moved, recipe changed.
    Exit code 1 where a case moved to another split, or a shard is not what its version quotes (DVC itself does not
    notice a flipped byte in its cache). Examples: `segfoundry audit data data-v1 data-v2`, `segfoundry audit data BUSI`
    """
    import re

    from infra.errors import UsageError

    place, _ = _open(workspace)
    if re.fullmatch(r"data-v\d+", first):
        _changes(place, first, second, html)
    elif second or html:
        msg = f"audit data: expected two data versions, e.g. data-v1 data-v2, found {first or 'none'!r} {second!r}"
        raise UsageError(msg)
    else:
        _verify(place, first)


def _changes(place: Any, old: str, new: str, html: Path | None) -> None:
    from pipelines.audits import changes as answers
    from pipelines.audits.pages import data_page
    from pipelines.audits.record import open_record
    from registry.audit_page import write_page

    with open_record(place) as record:
        found = answers.audit(record, old, new or record.tags[-1])
    if not found["ok"]:
        found_failure()
    if html:
        write_page(html, data_page(found, place))
    used = [reason for reason in answers.REASONS if any(one["counts"].get(reason) for one in found["datasets"])]
    rows = [
        [one["dataset"], one["state"], *(one["counts"].get(reason) for reason in used), len(one["recipe"]) or None]
        for one in found["datasets"]
    ]
    columns = ["dataset", "state", *used, "recipe parts changed"]
    shown = [table(f"{old} → {found['new']}, cases", columns, rows, right=tuple(columns[2:]))]
    for one in found["datasets"]:
        changed = [[change["reason"], change["case_id"], change["detail"]] for change in one["changes"][:20]]
        if changed:
            more = f", the first 20 of {len(one['changes'])}" if len(one["changes"]) > 20 else ""
            shown.append(table(f"{one['dataset']}{more}", ["reason", "case", "detail"], changed))
    said = [f"{one['dataset']}: {one['why']}" for one in found["datasets"] if one.get("why")]
    show(found, *shown, *said, *_written(html))


def _verify(place: Any, dataset: str) -> None:
    from pipelines import verify
    from pipelines.plan import known_dataset

    names = [known_dataset(dataset, place.cards)] if dataset else place.params().datasets
    found = [verify.dataset(place, name) for name in names]
    if not all(one["ok"] for one in found):
        found_failure()
    rows = [[one["dataset"], one["shards"], one["rows"], "; ".join(one["problems"]) or "holds"] for one in found]
    document = {"ok": all(one["ok"] for one in found), "datasets": found}
    show(document, table("", ["dataset", "shards", "rows", "verdict"], rows, right=("shards", "rows")))


@app.command()
def withdrawn(
    shards: Annotated[
        bool, typer.Option("--shards", help="Also decode every picture of every live shard and compare its hash.")
    ] = False,
    workspace: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Search the live shards for everything that was withdrawn: by id, content hash and pixels. Exit code 1 if found.

    Example: `segfoundry audit withdrawn --shards`
    """
    from pipelines.audits import search
    from pipelines.audits.record import open_record

    place, _ = _open(workspace)
    with open_record(place) as record:
        found = search.audit(record, shards=shards)
    if not found["ok"]:
        found_failure()
    rows = [[one["sample_id"], one["shard"], one["by"], one["identifier"]] for one in found["evidence"]]
    searched = found["searched"]
    said = (
        f"{found['tombstones']} tombstones, {searched['samples']} live samples in {len(searched['datasets'])} sets: "
        f"{'nothing found' if found['ok'] else f'{len(rows)} found'}"
    )
    evidence = [table("Found", ["sample", "shard", "by", "withdrawn"], rows)] if rows else []
    show(found, said, *evidence)


@app.command()
def purge(
    key: Annotated[str, typer.Argument(metavar="KEY", help="A withdrawn case, as `audit case` takes it.")],
    yes: YesOption = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="List what would go, and delete nothing.")] = False,
    actor: Annotated[str, typer.Option("--actor", help="Who; default: the user of this process.")] = "",
    workspace: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Delete the old shards of a withdrawn case from DVC's cache and every remote, for good, after listing them.

    Also cards and overlays that may show it, and what this machine keeps of it: pictures of evaluations, copies of old
    data versions, decoded arrays. The old data versions are marked as purged and cannot be rebuilt; their manifests
    and all figures stay, so that audits still answer. Example: `segfoundry audit purge BUSI/benign__1_`
    """
    place, store = _open(workspace)
    run_purge(place, store, key, yes=yes, dry_run=dry_run, actor=actor)


def run_purge(place: Any, store: Any, key: str, *, yes: bool, dry_run: bool, actor: str) -> None:
    """List, ask, delete and show: `audit purge` and `withdraw --purge`."""
    from infra.processes import RunLock
    from pipelines.audits import purge as verb
    from pipelines.audits.record import open_record
    from registry.ledger import default_actor

    with RunLock(place.state, "purge"), open_record(place) as record:
        planned = verb.plan(record, store, key)
        rows = [
            [
                one["file"],
                ", ".join(one["data_versions"]),
                one["bytes"],
                ", ".join(one["in"]) or "gone already",
                one["md5"],
            ]
            for one in planned["objects"]
        ]
        listed = [table("To delete for good", ["file", "data versions", "bytes", "in", "MD5"], rows, right=("bytes",))]
        if planned["local"]:
            here = [[one["path"], one["what"], _size(one["bytes"])] for one in planned["local"]]
            listed.append(table("And on this machine", ["path", "what", "bytes"], here, right=("bytes",)))
        if dry_run:
            show({**planned, "removed": {}, "removed_local": 0, "changed": False}, *listed, *_by_hand(planned))
            return
        if not yes:
            _ask(planned, listed)
        done = verb.carry_out(record, store, planned, actor=actor or default_actor())
    counts = [*done["removed"].items(), *([("this machine", gone)] if (gone := done["removed_local"]) else [])]
    removed = ", ".join(f"{count} from {where}" for where, count in counts) or "nothing was left to delete"
    versions = ", ".join(f"{one['dataset']} of {one['data_version']}" for one in done["versions"])
    show(done, *listed, f"deleted: {removed}", f"can no longer be rebuilt: {versions}", *_by_hand(done))


def _by_hand(planned: dict[str, Any]) -> list[str]:
    closed = [f"{one['dataset']} of {one['data_version']}, not searched: {one['why']}" for one in planned["unread"]]
    return [f"look at by hand: {one}" for one in [*closed, *planned["by_hand"]]]


def _size(size: int | None) -> int | str:
    return "gone already" if size is None else size


def _ask(planned: dict[str, Any], listed: list[Any]) -> None:
    import sys

    from infra.errors import UsageError
    from pipelines.cli.output import as_json, logs

    logs().print(*listed)
    if as_json() or not sys.stdin.isatty():
        msg = f"purge of {planned['key']}: nobody is here to confirm. Give --yes to delete what is listed, or --dry-run"
        raise UsageError(msg)
    here = f" and {len(planned['local'])} files and folders of this machine" if planned["local"] else ""
    typer.confirm(f"Delete these {len(planned['objects'])} objects{here} for good?", abort=True, err=True)


@app.command()
def ledger(
    head: HeadOption = "", html: HtmlOption = None, workspace: WorkspaceOption = None, as_json: JsonOption = False
) -> None:
    """Whether the hash chain of promotions holds and agrees with MLflow's aliases. Exit code 1 where not.

    Note the head that it prints down outside of the database; given back as --head, it shows rows cut off since.
    Example: `segfoundry audit ledger --json`
    """
    from dataclasses import asdict

    from pipelines.audits.pages import ledger_page
    from registry.audit import audit_ledger
    from registry.audit_page import write_page

    place, store = _open(workspace)
    found = audit_ledger(store, head)
    entries = [asdict(one) for one in store.ledger.entries()]
    if not found["ok"]:
        found_failure()
    if html:
        write_page(html, ledger_page(found, entries, place))
    problems = [*found["problems"], *found["drift"]]
    columns = ["position", "at", "actor", "action", "model", "version", "reason"]
    rows = [[one[key] for key in columns] for one in entries[-20:]]
    show(
        {**found, "rows": entries},
        table(f"The last {len(rows)} of {found['entries']} rows", columns, rows, right=("position", "version")),
        f"{found['entries']} rows: {'the chain holds' if found['ok'] else 'does NOT hold'}",
        f"head {found['head'] or 'unknown'}",
        *problems,
        *_written(html),
    )


def _yes(value: Any) -> str:
    return {True: "yes", False: "NO", None: "?"}[value]


def _few(names: list[str]) -> str:
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")


def _written(*files: Path | None) -> list[str]:
    return [f"written: {file}" for file in files if file]


def _write_csv(path: Path, columns: tuple[str, ...], rows: list[dict[str, Any]]) -> None:
    import csv
    import io

    from infra.storage import write_text

    sheet = io.StringIO()
    lines = csv.DictWriter(sheet, columns, lineterminator="\n")
    lines.writeheader()
    lines.writerows(rows)
    write_text(path, sheet.getvalue())
