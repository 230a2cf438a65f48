"""`python -m training.bench.page docs/benchmarks-training.md`: measure, plan, and write the page of figures."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from infra.storage import write_text
from training import loader_bench
from training.bench.run import OURS, VARIANTS, Options, run
from training.bench.sections import LOADER_HEAD, memory_section, recipes_section, speed_section, worth_section
from training.memory_plan import Step, document
from training.recipes import OFFICIAL
from training.sam3 import sizes
from training.sam3.activation_checkpointing import parts_of

PLANS: tuple[tuple[int, int, str], ...] = (
    (1, 1, ""),
    (1, 4, "all"),
    (4, 4, ""),
    (4, 4, "vision,text"),
    (4, 4, "all"),
    (8, 4, "all"),
)
"""Images, prompts an image, parts recomputed."""

REDUCED = Options(model_size="128", image_size=224, batch=1, prompts=4, steps=2, repetitions=1, plain=False)
"""`paper` and `full` at a width that a small machine runs."""

HEAD = """# Training: speed and memory

Written by `make bench-training` on {date}; nothing here is edited by hand.
{machine}
Runnable processes: {load_before:.1f} before the start, {load_after:.1f} after the end; {minutes:.1f} minutes in all.

Where the machine did other work, seconds vary, and the ratios, taken between runs that follow each other, are what to
hold on to.

`plain` is transformers' `Sam3Model` with one prompt an image and forward, so that the vision encoder runs again for
every prompt; `ours` packs prompts: vision once an image, the head once a prompt. `unpacked` is `ours` with a forward
a prompt, `recomputed` `ours` with all parts checkpointed, `compiled` `ours` under `torch.compile`.
"""


@dataclass(frozen=True)
class Asked:
    """What goes on the page."""

    variants: tuple[str, ...] = tuple(VARIANTS)
    repetitions: int = 3
    peers: str = sys.executable  # interpreter with the public loaders
    pictures: Path | None = None  # for the loaders; None: drawn
    samples: int = loader_bench.SAMPLES


def page(asked: Asked) -> str:
    """The whole page; takes ten minutes on two cores."""
    began, load_before = time.monotonic(), os.getloadavg()[0]
    packed = Options(
        model_size="small", optimiser="adamw", steps=2, repetitions=asked.repetitions, variants=asked.variants
    )
    found = run(packed, _say)
    single = replace(packed, prompts=1, variants=())
    body = [
        speed_section(found, _command(packed), "Four prompts an image"),
        worth_section(found),
        speed_section(run(single, _say), _command(single), "One prompt an image"),
        _recipes(),
        _loaders(asked),
        memory_section(_plans()),
    ]
    machine = found["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    head = HEAD.format(
        date=datetime.now(UTC).date().isoformat(),
        machine=f"{machine['name']}, {machine['threads']} thread(s); {versions}.",
        load_before=load_before,
        load_after=os.getloadavg()[0],
        minutes=(time.monotonic() - began) / 60,
    )
    return head + "".join(body)


def _command(options: Options) -> str:
    table = " --table" if options.variants == tuple(VARIANTS) else ""
    return (
        f"--model-size {options.model_size} --optimiser {options.optimiser} --prompts {options.prompts}{table} "
        f"--steps {options.steps} --repetitions {options.repetitions}"
    )


def _recipes() -> str:
    documents = []
    for name in OFFICIAL:
        _say(f"recipe {name}")
        parts = OFFICIAL[name](int(REDUCED.model_size), REDUCED.image_size).checkpoint_parts
        documents.append(run(replace(REDUCED, recipe=name, checkpoint_parts=parts), _say))
    return recipes_section(documents, REDUCED.model_size)


def _loaders(asked: Asked) -> str:
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="segfoundry-loaders-") as scratch:
        found = loader_bench.bench(
            asked.pictures,
            Path(scratch),
            asked.peers,
            samples=asked.samples,
            repeats=asked.repetitions,
            codecs=list(loader_bench.CODECS),
            tell=_say,
        )
    return LOADER_HEAD.format(seconds=time.monotonic() - began) + loader_bench.table(found)


def _plans() -> list[tuple[tuple[int, int, str], dict[str, Any]]]:
    sam3, image_size = sizes.named("full")
    base = Step(sam3, image_size, 1, 1)
    plans = []
    for images, prompts, parts in PLANS:
        _say(f"memory plan: {images} images, {prompts} prompts, {parts or 'nothing'} recomputed")
        step = replace(base, batch=images, prompts=prompts, checkpoint_parts=parts_of(parts.split(",")))
        plans.append(((images, prompts, parts), document(step)))
    return plans


def _say(line: str) -> None:
    sys.stderr.write(f"bench: {line}\n")


def main(arguments: list[str] | None = None) -> None:
    """Command line."""
    default = Asked()
    parser = argparse.ArgumentParser(prog="python -m training.bench.page", description=__doc__)
    parser.add_argument("out", type=Path, help="the page, replaced")
    parser.add_argument("--repetitions", type=int, default=default.repetitions)
    parser.add_argument("--variants", default=",".join(VARIANTS), help="of ours, comma-separated; all by default")
    parser.add_argument("--peers", default=default.peers, help="interpreter with the public loaders")
    parser.add_argument("--pictures", type=Path, help="folder with pictures for the loaders; without it drawn")
    parser.add_argument("--samples", type=int, default=default.samples, help="of a loader's run")
    given = vars(parser.parse_args(arguments))
    given["variants"] = tuple(part for part in given["variants"].split(",") if part)
    wrong = [name for name in given["variants"] if name not in VARIANTS]
    if wrong:
        parser.error(f"--variants: expected some of {', '.join(VARIANTS)}, found {', '.join(wrong)}")
    out = given.pop("out")
    write_text(out, page(Asked(**given)))
    _say(f"{OURS} and the other ways are in {out}")


if __name__ == "__main__":
    main()
