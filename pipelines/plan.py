"""Before the graph is walked: find the raw files and write what the stages depend on.

`sources/<dataset>.jsonl` and `recipes/*.json` are the leaves of `dvc.yaml`. They are rewritten only
where they say something else, so an unchanged world leaves nothing stale.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

from infra.dvc import INGEST_PREFIX
from infra.errors import DataError, UsageError
from infra.settings import Settings
from infra.storage import digest_of, read_json, remove_leftovers, sha256_bytes, write_bytes, write_json
from pipelines import events
from pipelines.workspace import PROJECT, Workspace, pseudonym_key

PHANTOM_SEED = 7
DEMO_DOWNLOAD_S = 120.0  # for each dataset; what has arrived is kept, and the next run goes on from there
MIRROR, OFFICIAL, PHANTOM, FOLDER = "mirror", "official", "phantom", "folder"
REMOTE = "remote"  # of a dry run: found, but not on this machine yet


def project_params() -> dict[str, Any]:
    """The project's own `params.yaml`, which a new workspace starts from."""
    value: dict[str, Any] = yaml.safe_load((PROJECT / "params.yaml").read_text(encoding="utf-8"))
    return value


def known_dataset(name: str, cards: Path | None = None) -> str:
    """The card's name for `name` in any case of letters; `UsageError` with near names where there is none.

    `cards` is the folder of a workspace's own cards.
    """
    from preprocessing.cards import load_card

    return str(load_card(name, cards).name)


def locate_datasets(
    names: Iterable[str],
    state: Path,
    settings: Settings,
    *,
    with_phantoms: bool,
    workspace: Workspace | None = None,
    look_from: Workspace | None = None,
) -> dict[str, dict[str, str]]:
    """Dataset -> {"kind", "path", "reason"}: mirror, else official address, else phantoms.

    With `workspace`, its own cards count, and a folder that was once given with `--root` is looked at first.

    With `look_from`, the workspace that `workspace` is a scratch copy of, nothing is fetched: what its downloads do not
    hold as it is now has no path, `REMOTE` as its kind, and "bytes".

    With `with_phantoms`, the phantom sets stand in, as datasets of their own, when something is
    missing; without, a missing dataset is a `DataError` that says where it was looked for.
    """
    from preprocessing.cards import load_card
    from preprocessing.phantoms import PHANTOMS
    from preprocessing.sources import locate_all

    found: dict[str, dict[str, str]] = {}
    missing: dict[str, str] = {}
    cards = [load_card(name, workspace.cards if workspace else None) for name in names]
    known = workspace.roots() if workspace else {}
    given = {name: record for name, record in known.items() if record["kind"] == FOLDER}
    everywhere = locate_all(
        [card for card in cards if card.name not in PHANTOMS and card.name not in given],
        mirror=settings.mirror or None,
        downloads=(look_from.state if look_from else state) / "downloads",
        look_only=look_from is not None,
        offline=settings.offline,
        max_bytes=settings.max_download_bytes,
        # Where phantoms can stand in, nobody should wait long for a slow host, or again and again for a dead one.
        patience_s=DEMO_DOWNLOAD_S if with_phantoms else None,
        memory=state / "unreachable.json" if with_phantoms else None,
    )
    answers = {located.dataset: located for located in everywhere}
    for card in cards:
        if card.name in PHANTOMS and card.name not in given:
            found[card.name] = _phantom(card.name, state, "asked for by name")
        elif card.name in given:
            if Path(given[card.name]["path"]).is_dir():
                found[card.name] = given[card.name]
            else:
                missing[card.name] = f"{given[card.name]['path']} is gone; give its new place with --root"
                events.emit("missing", dataset=card.name, reason=missing[card.name])
        elif (located := answers[card.name]).kind == REMOTE:
            found[card.name] = {"kind": REMOTE, "path": "", "reason": located.reason, "bytes": str(located.bytes)}
        elif located.path is None:
            missing[card.name] = located.reason
            events.emit("missing", dataset=card.name, reason=located.reason)
        else:
            found[card.name] = {"kind": located.kind, "path": str(located.path), "reason": located.reason}
    if missing and not with_phantoms:
        msg = "\n".join(f"{name}: expected its folder, found none: {reason}" for name, reason in missing.items())
        raise DataError(msg)
    if missing:
        reason = f"stands in for {', '.join(missing)}"
        for name in PHANTOMS:
            found.setdefault(name, _phantom(name, state, reason))
    return found


def _phantom(name: str, state: Path, reason: str) -> dict[str, str]:
    from preprocessing.phantoms import make_phantom

    root = state / "phantoms"
    make_phantom(name, root, PHANTOM_SEED)  # a complete one is kept
    return {"kind": PHANTOM, "path": str(root / name), "reason": reason}


def write_plan(workspace: Workspace, roots: dict[str, dict[str, str]], settings: Settings) -> None:
    """Scan the raw files of `roots` and write inventories, recipes and `roots.json`."""
    from preprocessing import names
    from preprocessing.build import recipe_file
    from preprocessing.sources import scan, write_inventory

    secret = pseudonym_key(settings)
    for name, record in roots.items():
        events.emit("scan", dataset=name)
        card = workspace.card(name)
        shown = names.for_messages(card, secret)
        files = scan(Path(record["path"]), workspace.state / "hashes" / f"{name}.json", shown)
        if not files:
            msg = f"{name}: expected raw files in {record['path']}, found none"
            raise DataError(msg)
        target = workspace.inventory(name)
        fresh = target.with_name(f".{name}.jsonl.part-tmp")
        target.parent.mkdir(parents=True, exist_ok=True)
        write_inventory(fresh, names.hidden(card, files, secret))
        names.keep_names(card, files, secret, workspace.state / "names" / f"{name}.json")
        if target.exists() and target.read_bytes() == fresh.read_bytes():
            fresh.unlink()
        else:
            os.replace(fresh, target)
        key = sha256_bytes(b"segfoundry fingerprint" + secret)[:16]
        recipe = {**recipe_file(card), "pseudonym_key": key, "source_kind": record["kind"]}
        _write_if_other(workspace.recipe(name), with_tombstones(workspace, name, recipe))
    write_json(workspace.state / "roots.json", workspace.roots() | roots)
    write_step_recipes(workspace)
    remove_leftovers(workspace.state)


def with_tombstones(workspace: Workspace, name: str, recipe: dict[str, Any]) -> dict[str, Any]:
    """A dataset's recipe with what must stay out of it; without the entry where there is nothing."""
    from preprocessing.withdrawn import identifiers_of, read_tombstones

    out = identifiers_of(read_tombstones(workspace.tombstones), name)
    kept = {key: value for key, value in recipe.items() if key != "withdrawn"}
    return {**kept, "withdrawn": out} if out else kept


def refresh_tombstones(workspace: Workspace, name: str) -> None:
    """Write a dataset's tombstones into its recipe, which makes its ingest stage stale."""
    path = workspace.recipe(name)
    if path.is_file():
        _write_if_other(path, with_tombstones(workspace, name, read_json(path)))


def write_step_recipes(workspace: Workspace) -> None:
    """`recipes/train.json` and `recipes/evaluate.json`: resolved recipe and code digest.

    Recipes of the workspace's own cards too: who edits `cards/X.yaml` and trains means the edited card.
    """
    from pipelines import starts
    from preprocessing.recipe import recipe_file as dataset_recipe
    from preprocessing.yaml_card import yaml_cards
    from training.recipes import evaluation_recipe_file, recipe_file

    params = workspace.params()
    for name in sorted(set(params.datasets) & set(yaml_cards(workspace.cards))):
        path = workspace.recipe(name)
        if path.is_file():
            _write_if_other(path, {**read_json(path), **dataset_recipe(workspace.card(name))})
    _write_if_other(workspace.recipe("train"), starts.kept(workspace, recipe_file(params.train.model_dump())))
    _write_if_other(workspace.recipe("evaluate"), evaluation_recipe_file(params.evaluate.model_dump()))


def register_card(workspace: Workspace, file: Path) -> str:
    """Keep the card at `file` as the workspace's own, `cards/<name>.yaml`, byte for byte; returns its name."""
    from preprocessing.cards import all_cards
    from preprocessing.yaml_card import read_card

    name = read_card(file).card.name
    taken = {known.lower(): known for known in all_cards()}
    own = {path.stem.lower(): path.stem for path in workspace.cards.glob("*.yaml")}
    other = taken.get(name.lower()) or (own.get(name.lower()) if own.get(name.lower()) != name else None)
    if other:
        msg = f"{file}: name: expected a name of its own, found that of the card {other}. Choose another name"
        raise UsageError(msg)
    target, text = workspace.cards / f"{name}.yaml", file.read_bytes()
    if not target.is_file() or target.read_bytes() != text:
        write_bytes(target, text)
    return name


def remember_folder(workspace: Workspace, wanted: list[str], folder: Path) -> None:
    """Note that the one dataset of `wanted` lies in `folder` on this machine."""
    if len(wanted) != 1:
        msg = f"--root: expected one dataset to go with the folder, found {len(wanted)}. Name it, or give its --card"
        raise UsageError(msg)
    if not folder.is_dir():
        msg = f"--root: expected a folder with the raw files of {wanted[0]}, found none at {folder}"
        raise UsageError(msg)
    record = {"kind": FOLDER, "path": str(folder.resolve()), "reason": "given with --root"}
    write_json(workspace.state / "roots.json", workspace.roots() | {wanted[0]: record})


def _write_if_other(path: Path, value: Any) -> None:
    # Compared as parsed: an untouched file keeps its time stamp, and DVC need not hash it again.
    if not path.exists() or digest_of(read_json(path)) != digest_of(value):
        write_json(path, value)


def forget_unlisted(workspace: Workspace, names: Iterable[str]) -> list[str]:
    """Take datasets that `params.yaml` no longer lists out of the workspace; DVC's cache keeps committed ones.

    The train stage depends on the whole of `data/`, so what lies there must be what the graph makes. A dataset
    is ours to remove where it was committed or has a recipe (a kill can come between its files and the commit).
    """
    committed = [name.removeprefix(INGEST_PREFIX) for name in workspace.repo.lock() if name.startswith(INGEST_PREFIX)]
    planned = [path.stem for path in (workspace.root / "recipes").glob("*.json")]
    gone = []
    for name in sorted({*committed, *planned} - {*names, "train", "evaluate"}):
        if (workspace.data / name).is_dir():
            shutil.rmtree(workspace.data / name)
            gone.append(name)
        # The recipe last: until then a kill leaves the proof that the folder is ours. Git keeps both files' history.
        workspace.inventory(name).unlink(missing_ok=True)
        workspace.recipe(name).unlink(missing_ok=True)
    return gone
