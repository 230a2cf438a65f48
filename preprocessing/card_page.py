"""`card.html`: what a dataset version is, for people; one file, no script, nothing fetched.

A pure function of the version: no times, no paths, and the figures are those of `dataset.json` and
`fingerprint.json`. What a version shares with others is no part of it: `with_leakage` gives the page of a
workspace, which has that row too.
"""

from __future__ import annotations

from collections import Counter
from functools import cache
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template

from infra.storage import read_json
from preprocessing import fingerprint, schema
from preprocessing.card_figures import by_concept, histograms
from preprocessing.card_pictures import colours_of, pictures
from preprocessing.cards import DatasetCard
from preprocessing.quality import Account

# A card is for reading on a phone; quarantine.parquet has every row.
_MOST_REFUSALS = 100


# Between these the page tells of leakage; texts of data are escaped and cannot hold them.
_LEAKAGE_BEGINS, _LEAKAGE_ENDS = "<!-- leakage -->\n", "<!-- /leakage -->\n"


@cache
def _template(name: str) -> Template:
    loader = FileSystemLoader(Path(__file__).with_name("templates"))
    environment = Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    return environment.get_template(name)


def card_page(
    card: DatasetCard,
    report: dict[str, Any],
    manifest: pa.Table,
    quarantine: pa.Table,
    account: Account,
    folder: Path,
) -> str:
    """The page of a version whose shards, `cases.parquet` and `fingerprint.json` lie in `folder`.

    Equal versions give equal pages. Where there is no fingerprint (a version of an older build) the page has none.
    """
    refused = quarantine.to_pylist()
    figures = folder / schema.FINGERPRINT_FILE
    return _template("card.html").render(
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
        fingerprint=read_json(figures) if figures.is_file() else None,
        quantiles=list(fingerprint.QUANTILES),
        leakage=None,
        splits=schema.SPLITS,
    )


def with_leakage(page: str, leakage: dict[str, Any]) -> str:
    """A version's page with its row of the matrix dataset × dataset in the place of the text that stands for it.

    `leakage` is what `preprocessing.leakage.row_of` gives. On a page of an older build, which keeps no place for
    it, it comes last.
    """
    section = _template("card_leakage.html").render(leakage=leakage)
    before, begins, rest = page.partition(_LEAKAGE_BEGINS)
    _, ends, after = rest.partition(_LEAKAGE_ENDS)
    if begins and ends:
        return before + begins + section + ends + after
    before, ends, after = page.rpartition("</body>")
    return before + section + ends + after
