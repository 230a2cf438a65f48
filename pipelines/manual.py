"""Making chosen stages without Prefect: what `data ingest`, `train` and `evaluate` do for one person at a desk."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from infra.compute import ray_session
from infra.dvc import INGEST_PREFIX
from infra.processes import RunLock, recorded_children
from infra.settings import load_settings
from pipelines import demo, events, gates, pages, plan, release, stages, starts
from pipelines.workspace import Workspace, make_folder


def fetch(
    root: Path,
    names: Sequence[str],
    *,
    card: Path | None = None,
    folder: Path | None = None,
    licence: str | None = None,
) -> tuple[Workspace, dict[str, dict[str, str]]]:
    """Find the raw files of `names` and write what their stages depend on, in the workspace at `root`.

    A new workspace lists just these datasets; an old one gets those it does not list yet. `card` is a YAML
    card that becomes the workspace's own; `folder` holds the raw files of the one dataset that is asked for.
    `licence` limits the workspace to datasets whose card says yes to that use (`gates.limited`).
    """
    make_folder(root)
    settings = load_settings()
    old = (root / "params.yaml").is_file()
    params = demo.base_params(root)
    place = Workspace(root)
    if card is not None:
        names = [*names, plan.register_card(place, card)]
    wanted = list(dict.fromkeys(plan.known_dataset(name, place.cards) for name in names)) or list(params["datasets"])
    if not old:
        params["datasets"] = wanted
    params, wanted = gates.limited(params, wanted, licence, place.cards)
    if folder is not None:
        plan.remember_folder(place, wanted, folder)
    roots = plan.locate_datasets(wanted, place.state, settings, with_phantoms=False, workspace=place)
    known = params["datasets"] if old else []
    datasets = [*known, *[name for name in roots if name not in known]]
    with RunLock(place.state, "data fetch"):
        demo.clean_up(place)
        workspace = Workspace.prepare(root, {**params, "datasets": datasets})
        plan.write_plan(workspace, roots, settings)
        if licence:
            plan.forget_unlisted(workspace, datasets)
    return workspace, roots


def limit(workspace: Workspace, licence: str) -> None:
    """Limit a workspace to datasets whose card says yes to `licence`; the others leave its params.yaml and `data/`."""
    with RunLock(workspace.state, "licence limit"):
        params = demo.base_params(workspace.root)
        params, datasets = gates.limited(params, list(params["datasets"]), licence, workspace.cards)
        Workspace.prepare(workspace.root, {**params, "datasets": datasets})
        plan.forget_unlisted(workspace, datasets)


def make(workspace: Workspace, targets: Iterable[str]) -> list[str]:
    """Run the stale ones among `targets` and what they need, in DVC's order; returns what was run."""
    with RunLock(workspace.state, "make"), recorded_children(workspace.state):
        plan.write_step_recipes(workspace)
        repo = workspace.repo
        needed = repo.needed(targets)
        made: list[str] = []
        if not set(needed) & set(repo.changed()):
            _version(workspace, needed)  # a killed run may have made the last of it
            return made
        with ray_session(workspace.state):
            for name in needed:
                if name == "train":
                    starts.pin(workspace, release.open_store(workspace))
                # asked again each time: what one stage makes decides whether the next has anything to do
                if name not in repo.changed():
                    continue
                with events.phase(name):
                    stages.run_stage(workspace, name)
                repo.commit_stage(name)
                made.append(name)
        _version(workspace, needed)
        if any(name.startswith(INGEST_PREFIX) for name in made):
            pages.write_pages(workspace)
        repo.commit_state(f"made: {', '.join(made)}")
    return made


def _version(workspace: Workspace, needed: Iterable[str]) -> None:
    """Tag the data that these stages are or build on; nothing where it is the newest version already."""
    if any(name.startswith(INGEST_PREFIX) for name in needed):
        workspace.repo.tag_data_version()
