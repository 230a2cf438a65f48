"""`card.html`: what a dataset version is, for people; one file, no script, nothing fetched.

A pure function of the version: no times, no paths, and the figures are those of `dataset.json`.
"""

from __future__ import annotations

from collections import Counter
from functools import cache
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template

from preprocessing import schema
from preprocessing.card_figures import by_concept, histograms
from preprocessing.card_pictures import colours_of, pictures
from preprocessing.cards import DatasetCard
from preprocessing.quality import Account

# A card is for reading on a phone; quarantine.parquet has every row.
_MOST_REFUSALS = 100


@cache
def _template() -> Template:
    loader = FileSystemLoader(Path(__file__).with_name("templates"))
    return Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True).get_template(
        "card.html"
    )


def card_page(
    card: DatasetCard,
    report: dict[str, Any],
    manifest: pa.Table,
    quarantine: pa.Table,
    account: Account,
    folder: Path,
    leakage: dict[str, Any] | None = None,
) -> str:
    """The page of a version whose shards and `cases.parquet` lie in `folder`; equal versions give equal pages.

    `leakage`: what is known of crossings, as {"ok": bool, "said": sentence, "rows": [{"with", "found"}]}; without
    it the page has no such section.
    """
    refused = quarantine.to_pylist()
    return _template().render(
        card=card,
        report=report,
        concepts=by_concept(card.concepts, manifest, card.synonyms),
        colours={name: "#{:02x}{:02x}{:02x}".format(*colour) for name, colour in colours_of(card.concepts).items()},
        histograms=histograms(manifest, pq.read_table(folder / schema.CASES_FILE), folder),
        pictures=pictures(card.concepts, manifest, folder),
        reasons=Counter(row["reason"] for row in refused).most_common(),
        quarantine=refused[:_MOST_REFUSALS],
        more_refused=max(0, len(refused) - _MOST_REFUSALS),
        not_data=sorted(Counter(account.not_data.values()).items()),
        leakage=leakage,
        splits=schema.SPLITS,
    )
