"""`python -m training.bench`: one JSON document on standard output, what is being done on standard error."""

from __future__ import annotations

import argparse
import json
import sys

from infra.errors import SegfoundryError
from training.bench.run import VARIANTS, Options, run
from training.recipes import FREEZABLE, RECIPES
from training.sam3.activation_checkpointing import PARTS


def parsed(arguments: list[str] | None) -> Options:
    """Options of the command line."""
    default = Options()
    parser = argparse.ArgumentParser(prog="python -m training.bench", description=__doc__)
    parser.add_argument("--recipe", choices=sorted(RECIPES), default=default.recipe)
    parser.add_argument(
        "--model-size", default=default.model_size, help="tiny, small, full, or a width of the full model"
    )
    parser.add_argument("--image-size", type=int, default=default.image_size, help="pixels; 0: the size's own")
    parser.add_argument("--batch", type=int, default=default.batch, help="images a step")
    parser.add_argument("--prompts", type=int, default=default.prompts, help="prompts an image")
    parser.add_argument("--precision", choices=("fp32", "bf16"), default=default.precision)
    parser.add_argument("--checkpoint-parts", default="", help=f"comma-separated: all, {', '.join(PARTS)}")
    parser.add_argument("--freeze", default="", help=f"comma-separated: {', '.join(FREEZABLE)}")
    parser.add_argument("--compile", action="store_true", help="torch.compile of the three stages")
    parser.add_argument("--optimiser", choices=("adamw", "muon"), default="", help="in place of the recipe's")
    parser.add_argument("--steps", type=int, default=default.steps, help="steps of each way in a repetition")
    parser.add_argument("--repetitions", type=int, default=default.repetitions)
    parser.add_argument(
        "--table", action="store_true", help=f"ours also {' and '.join(VARIANTS)}, each with its figures"
    )
    parser.add_argument("--ours-alone", action="store_true", help="without the plain way, which recomputes nothing")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default=default.device)
    parser.add_argument("--data", default="", help="folder of dataset versions; without it pictures are made up")
    parser.add_argument("--datasets", default="", help="comma-separated names below --data; without it all of them")
    parser.add_argument("--profile", default="", help="file for torch's profile of our way")
    given = vars(parser.parse_args(arguments))
    for name in ("checkpoint_parts", "freeze", "datasets"):
        given[name] = tuple(part for part in given[name].split(",") if part)
    given["variants"] = tuple(VARIANTS) if given.pop("table") else ()
    given["plain"] = not given.pop("ours_alone")
    return Options(**given)


def main(arguments: list[str] | None = None) -> int:
    """Command line; 2 for a wrong use."""
    try:
        found = run(parsed(arguments), lambda line: _say(f"bench: {line}"))
    except SegfoundryError as error:
        _say(f"bench: {error}")
        return error.exit_code
    sys.stdout.write(json.dumps(found, indent=2) + "\n")
    return 0


def _say(line: str) -> None:
    sys.stderr.write(line + "\n")


if __name__ == "__main__":
    sys.exit(main())
