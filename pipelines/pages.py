"""`reports/data/<dataset>.html`: the data card of each version with its row of the leakage matrix.

A version's own `card.html` is a function of that version alone, as DVC needs it; what a dataset shares with others
changes when another dataset comes. So these pages lie outside of `data/`, are in no version, and are made again
after every ingest.
"""

from __future__ import annotations

from pathlib import Path

from infra.storage import write_text
from pipelines import gates
from pipelines.workspace import Workspace
from preprocessing.schema import CARD_FILE, DATASET_FILE


def ingested(workspace: Workspace) -> list[str]:
    """The datasets of params.yaml that have a version here."""
    return [name for name in workspace.params().datasets if (workspace.data / name / DATASET_FILE).is_file()]


def page_of(workspace: Workspace, dataset: str) -> Path:
    """Where a dataset's page lies."""
    return workspace.reports / "data" / f"{dataset}.html"


def write_pages(workspace: Workspace) -> list[Path]:
    """Write the page of every ingested dataset, remove those of others; files that say the same are left alone."""
    from preprocessing.card_page import with_leakage
    from preprocessing.leakage import row_of

    names = ingested(workspace)
    wanted = {page_of(workspace, name): name for name in names}
    for path in (workspace.reports / "data").glob("*.html"):
        if path not in wanted:
            path.unlink()
    found = gates.leakage(workspace, names) if names else {}
    for path, name in wanted.items():
        text = with_leakage((workspace.data / name / CARD_FILE).read_text(encoding="utf-8"), row_of(found, name))
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
            write_text(path, text)
    return list(wanted)
