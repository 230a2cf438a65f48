"""`python -m pipelines.bench.vanilla --evaluation FOLDER`: vanilla against tuned, as the paper's two tables.

Reads an evaluation (`segfoundry evaluate --model …`) and writes its paired differences, internal and external sets
apart, into a section of its own at the end of docs/results.md. Nothing is measured here.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from infra.errors import UsageError
from infra.storage import read_json, write_text

HEADING = "## Vanilla against tuned"


def section(evaluation: dict[str, Any], train: dict[str, Any] | None = None) -> str:
    """The section as Markdown, from an `evaluation.json`. UsageError where it does not compare with the start.

    `train` is the model's `train.json`: datasets that it was not trained on are marked.
    """
    pairs = [row for row in evaluation["paired"] if row["against"] == "start"]
    if not pairs:
        msg = "evaluation.json: expected paired differences against the start, found none; evaluate both models"
        raise UsageError(msg)
    lines = [
        HEADING,
        "",
        "Written by `python -m pipelines.bench.vanilla` from an evaluation; nothing here is edited by hand. Split: "
        f"{evaluation['split']}. Text prompts alone; Dice by the semantic map, the union of all instances and the "
        "best instance (top-1); 95 % intervals by bootstrap over groups, of the difference on the same pairs; "
        "none where nothing moved from draw to draw, as with one group. "
        "`docs/evaluation.md` defines them. *vanilla* is the checkpoint that training started from.",
    ]
    if train is not None:
        named = sorted(train["datasets"])
        lines += [
            "",
            f"The model: recipe `{train['recipe']['name']}`, {train['steps']:,} steps, seed {train['seed']}, trained "
            f"on {len(named)} datasets ({', '.join(named)}). † marks sets that it never saw; they are in the means.",
        ]
    for external, title in ((False, "Internal sets"), (True, "External sets, which nothing is trained on")):
        own = [row for row in pairs if row["external"] is external]
        if own:
            lines += ["", f"### {title}", "", *_table(own, evaluation["aggregates"], train)]
    return "\n".join(lines) + "\n"


def _table(
    pairs: list[dict[str, Any]], aggregates: list[dict[str, Any]], train: dict[str, Any] | None
) -> Iterable[str]:
    yield "| | vanilla | tuned | difference (95 %) | tuned, union | tuned, top-1 | groups | pairs |"
    yield "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |"
    places = {"dataset": 0, "modality": 1, "all": 2}
    shown = [row for row in pairs if row["level"] in places]
    for row in sorted(shown, key=lambda row: (places[row["level"]], row["name"])):
        others = [_of(aggregates, row, metric) for metric in ("dice_instances", "dice_top1")]
        unseen = " †" if train is not None and row["name"] not in train["datasets"] else ""
        name = {"dataset": f"{row['name']}{unseen}", "modality": f"*{row['name']}*", "all": "**mean over datasets**"}[
            row["level"]
        ]
        bounds = row["interval"]
        moved = bounds and bounds[0] < bounds[1]
        said = f"{row['difference']:+.3f}" + (f" ({bounds[0]:+.3f} to {bounds[1]:+.3f})" if moved else "")
        cells = [name, f"{row['before']:.3f}", f"{row['after']:.3f}", said, *others, row["groups"], row["pairs"]]
        yield f"| {' | '.join(map(str, cells))} |"


def _of(aggregates: list[dict[str, Any]], row: dict[str, Any], metric: str) -> str:
    wanted = {key: row[key] for key in ("level", "name", "external")}
    wanted |= {"model": "after", "prompt": "text", "metric": metric}
    found = [one["value"] for one in aggregates if all(one[key] == value for key, value in wanted.items())]
    return f"{found[0]:.3f}" if found and found[0] is not None else ""


def with_section(page: str, text: str) -> str:
    """A page with this section at its end, in the place of an older one."""
    return page.partition(HEADING)[0].rstrip("\n") + "\n\n" + text


def kept_section(page: Path) -> str:
    """The section that a page has already, to be kept when the rest is written anew; empty where there is none."""
    text = page.read_text(encoding="utf-8") if page.is_file() else ""
    _, heading, rest = text.partition(HEADING)
    return f"\n{heading}{rest}" if heading else ""


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m pipelines.bench.vanilla", description=__doc__)
    parser.add_argument("--evaluation", type=Path, required=True, help="folder with evaluation.json")
    parser.add_argument("--model", type=Path, help="the model's folder: says what it was trained on")
    parser.add_argument("--out", type=Path, default=Path("docs/results.md"))
    given = parser.parse_args()
    page = given.out.read_text(encoding="utf-8") if given.out.is_file() else "# Results on the sample data\n"
    try:
        train = read_json(given.model / "train.json") if given.model else None
        text = section(read_json(given.evaluation / "evaluation.json"), train)
    except UsageError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code
    write_text(given.out, with_section(page, text))
    return 0


if __name__ == "__main__":
    sys.exit(main())
