"""Does presence mean what it says: of concepts called present with 0.8, are eight in ten there?"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import numpy as np

from registry.report.evaluation import AFTER
from registry.report.pairs import Pairs

BINS = 10


def reliability(pairs: dict[str, Pairs], datasets: Collection[str]) -> dict[str, Any] | None:
    """Presence against truth over the pairs of `datasets`; None where present and absent ones were not both asked.

    Every pair counts alike. `bins` are of equal width, those without a pair left out: `{"said", "found", "pairs"}`,
    mean presence and share of pairs that were there.
    """
    if AFTER not in pairs:
        return None
    own = pairs[AFTER].of(datasets)
    own = own.where(np.isfinite(own.presence))
    present = int(own.present.sum())
    if present in (0, len(own)):
        return None
    places = np.minimum((own.presence * BINS).astype(int), BINS - 1)
    bins = [
        {
            "said": float(own.presence[places == place].mean()),
            "found": float(own.present[places == place].mean()),
            "pairs": int((places == place).sum()),
        }
        for place in range(BINS)
        if (places == place).any()
    ]
    return {"bins": bins, "present": present, "absent": len(own) - present, "most": max(one["pairs"] for one in bins)}
