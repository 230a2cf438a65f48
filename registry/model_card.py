"""The model card: what a version is for, what made it, how well it does and where it fails.

Written from the evaluation and the lineage alone (after Mitchell et al. 2019, "Model Cards for Model Reporting"), so
that the card of a version can be made again at any time and says the same. One content, two forms: Markdown and HTML.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from infra.storage import write_text
from preprocessing.schema.licences import answer
from registry import card_figures as figures
from registry.lineage import Lineage, licence_name, parent_name
from registry.pages import environment

NAME = "model_card"
_MOST_ROWS = 10  # of the worst
SAM_LICENCE = "SAM License"


@dataclass(frozen=True)
class Table:
    """A table; cells are text already."""

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Code:
    """Commands for a shell."""

    text: str


Block = str | tuple[str, ...] | Table | Code
"""A paragraph, a list, a table, or commands."""


@dataclass(frozen=True)
class Section:
    """A heading with what stands below it."""

    title: str
    blocks: tuple[Block, ...]


def write_model_card(folder: Path, evaluation: dict[str, Any], lineage: Lineage, name: str) -> list[Path]:
    """Write `model_card.md` and `model_card.html` into `folder`; return their paths."""
    sections = model_card(evaluation, lineage)
    page = environment().get_template("model_card.html")
    html = page.render(name=name, sections=[(one.title, [_kind(block) for block in one.blocks]) for one in sections])
    paths = [folder / f"{NAME}.md", folder / f"{NAME}.html"]
    for path, text in zip(paths, (markdown(name, sections), html), strict=True):
        write_text(path, text)
    return paths


def model_card(evaluation: dict[str, Any], lineage: Lineage) -> list[Section]:
    """The sections of a card."""
    return [
        _identity(evaluation, lineage),
        _use(lineage),
        _misuse(evaluation, lineage),
        _data(lineage),
        _licences(lineage),
        _metrics(evaluation),
        _failures(evaluation),
        _absent(evaluation),
        _rebuild(lineage),
    ]


def markdown(name: str, sections: Iterable[Section]) -> str:
    """A card as GitHub-flavoured Markdown."""
    parts = [f"# Model card: {name}"]
    for section in sections:
        parts.append(f"## {section.title}")
        for block in section.blocks:
            if isinstance(block, str):
                parts.append(block)
            elif isinstance(block, Table):
                lines = [block.columns, tuple("---" for _ in block.columns), *block.rows]
                parts.append("\n".join("| " + " | ".join(_cell(text) for text in line) + " |" for line in lines))
            elif isinstance(block, Code):
                parts.append(f"```sh\n{block.text}\n```")
            else:
                parts.append("\n".join(f"- {line}" for line in block))
    return "\n\n".join(parts) + "\n"


def _identity(evaluation: dict[str, Any], lineage: Lineage) -> Section:
    recipe = ((lineage.get("parameters") or {}).get("train") or {}).get("recipe") or {}
    rows = [
        ("weights (SHA-256)", lineage["weights_sha256"]),
        ("data version", f"{lineage['data_version']} (commit {lineage['data_commit']})"),
        ("code", lineage["code_commit"]),
        ("recipe", f"{recipe.get('name', 'not noted')}, {lineage.get('steps')} steps, seed {lineage.get('seed')}"),
        ("started from", parent_name(lineage.get("parent") or {})),
        ("parameters (digest)", lineage.get("parameters_digest") or "not noted"),
        ("splits (digest)", lineage.get("split_digest") or "not noted"),
        ("concepts (digest)", lineage.get("ontology_digest") or "not noted"),
        ("evaluation (digest)", f"{lineage['evaluation_digest']}, split {evaluation.get('split', 'test')}"),
        ("strictest licence", lineage["strictest_licence"]),
    ]
    text = "A SAM3-style model that segments medical pictures and volumes for prompts in words (English)."
    return Section("The model", (text, _pairs(("what", "value"), rows)))


def _use(lineage: Lineage) -> Section:
    modalities = sorted({str(one.get("modality") or "unknown") for one in lineage["datasets"]})
    return Section(
        "Intended use",
        (
            "Drafts of segmentation masks that a trained person checks: annotation, research, retrospective studies.",
            (
                f"Modalities it was trained on: {', '.join(modalities)}.",
                "Prompts that name a concept of its training data, or one of its synonyms, in English.",
                "Single pictures, and volumes slice by slice; masks come back on the original grid.",
            ),
        ),
    )


def _misuse(evaluation: dict[str, Any], lineage: Lineage) -> Section:
    lines = [
        "Diagnosis, treatment planning or triage without a qualified person who checks every mask: it is no medical "
        "device and has no approval as one.",
        "Modalities, body parts and concepts that are not in the tables below: nothing was measured there.",
        "Patients, scanners and protocols unlike those of the training data, without a measurement of your own.",
        "As proof that something is absent: see “Absent concepts”.",
    ]
    if lineage.get("commercial_use") != "yes":
        lines.append(
            f"Commercial use: the licences of data and weights say {lineage.get('commercial_use', 'unknown')}."
        )
    if lineage.get("redistribution") != "yes":
        lines.append(f"Passing it on: the licences of data and weights say {lineage.get('redistribution', 'unknown')}.")
    unmeasured = [name for name, one in (evaluation.get("datasets") or {}).items() if not one.get("samples")]
    if unmeasured:
        lines.append(f"Reliance on figures for {', '.join(sorted(unmeasured))}: no sample of them was measured.")
    return Section("Not intended", (tuple(lines),))


def _data(lineage: Lineage) -> Section:
    columns = ("dataset", "modality", "source", "cases", "left out", "train", "val", "test", "manifest (digest)")
    blocks: list[Block] = [
        "Splits are by patient, video or slide. “left out” are cases in quarantine, each with its reason.",
        Table(columns, tuple(_dataset_row(one) for one in lineage["datasets"])),
    ]
    external = lineage.get("external_datasets") or []
    if external:
        blocks += [
            "Measured on, never trained on:",
            Table(columns, tuple(_dataset_row(one) for one in external)),
        ]
    return Section("Data", tuple(blocks))


def _dataset_row(one: dict[str, Any]) -> tuple[str, ...]:
    counts, splits = one.get("counts") or {}, one.get("splits") or {}
    numbers = [
        counts.get("cases_kept"),
        counts.get("cases_quarantined"),
        *(splits.get(n) for n in ("train", "val", "test")),
    ]
    said = [str(one["dataset"]), str(one.get("modality") or "unknown"), str(one.get("source_kind") or "not noted")]
    return (*said, *("–" if value is None else f"{value:,}" for value in numbers), str(one["manifest_digest"])[:12])


def _licences(lineage: Lineage) -> Section:
    rows = [
        (f"data: {one['dataset']}", licence_name(one.get("licence")), *_answers(one.get("licence") or {}),
         str(one.get("citation") or ""))
        for one in lineage["datasets"]
    ]  # fmt: skip
    inherited = lineage.get("start_licences") or []
    rows += [(f"start weights: {one.get('of', 'unknown')}", licence_name(one), *_answers(one), "") for one in inherited]
    bound = any(SAM_LICENCE.lower() in licence_name(one).lower() for one in inherited)
    sam = (
        f"The weights it started from come under the {SAM_LICENCE}, which goes on to bind this model: pass the licence "
        "on with it, name SAM3 in publications, and keep to its trade controls and prohibited uses (military, weapons)."
        if bound
        else f"No weights under the {SAM_LICENCE} went into it: training started from "
        f"{parent_name(lineage.get('parent') or {})}. What starts from SAM3's own weights is bound by that licence."
    )
    total = (
        f"Strictest of all: {lineage['strictest_licence']}. "
        f"Commercial use: {lineage.get('commercial_use', 'unknown')}; "
        f"redistribution: {lineage.get('redistribution', 'unknown')} (“yes” only where all of them say yes)."
    )
    columns = ("what", "licence", "commercial use", "redistribution", "cite")
    return Section("Licence chain", (total, Table(columns, tuple(rows)), sam))


def _answers(licence: dict[str, Any]) -> tuple[str, str]:
    return answer(licence, "commercial"), answer(licence, "redistribution")


def _metrics(evaluation: dict[str, Any]) -> Section:
    columns = ("dataset", "samples", "Dice, start", "Dice, text", "95 % interval", "Dice, box (privileged)")
    blocks: list[Block] = [
        f"Split {evaluation.get('split', 'test')}; Dice by words alone is the headline. Boxes come from the truth, so "
        "their column says what a user who draws a box may get at best. Intervals are by bootstrap over groups.",
        Table(columns, tuple(figures.dataset_rows(evaluation))),
    ]
    volumes = figures.surface_rows(evaluation)
    if volumes:
        blocks += [
            "Whole volumes on their original grid:",
            Table(("dataset", "Dice", "surface Dice", "HD95 in mm", "missed"), tuple(volumes)),
        ]
    compared = figures.paired_rows(evaluation)
    if compared:
        blocks += [
            "Paired differences over the same pairs of picture and concept:",
            Table(("against", "what", "before", "after", "difference", "95 % interval", "pairs"), tuple(compared)),
        ]
    return Section("How well it does", tuple(blocks))


def _failures(evaluation: dict[str, Any]) -> Section:
    concepts = figures.worst_concepts(evaluation)[:_MOST_ROWS]
    datasets = figures.worst_datasets(evaluation)[:_MOST_ROWS]
    blocks: list[Block] = [
        "The worst first, by Dice with words alone.",
        Table(("dataset", "Dice, text", "samples"), tuple(datasets)),
        Table(("concept", "dataset", "Dice, text", "pairs"), tuple(concepts)),
    ]
    reasons = figures.failure_rows(evaluation)
    if reasons:
        blocks += [
            "Failures by kind, in pairs of picture and concept:",
            Table(("dataset", "kind", "pairs"), tuple(reasons)),
        ]
    return Section("Known failures", tuple(blocks))


def _absent(evaluation: dict[str, Any]) -> Section:
    blocks: list[Block] = [
        "Asked for something that is not there, it should find nothing and score low. Only concepts that a picture "
        "was searched for count as absent.",
        _pairs(("figure", "value"), figures.absent_figures(evaluation)),
    ]
    rows = figures.absent_rows(evaluation)
    if rows:
        blocks.append(Table(("dataset", "score where absent", "score where present", "absent pairs"), tuple(rows)))
    return Section("Absent concepts", tuple(blocks))


def _rebuild(lineage: Lineage) -> Section:
    commands = (
        f"# in a checkout of the code: git checkout {lineage['code_commit'].removesuffix('-changed')}\n"
        f"# in the workspace, with the raw files of the datasets above in reach:\n"
        f"git checkout {lineage['data_version']} && dvc checkout\n"
        "dvc repro train evaluate\n"
        f"sha256sum models/candidate/model.safetensors  # registered: {lineage['weights_sha256']}"
    )
    blocks: list[Block] = [
        Code(commands),
        "`segfoundry audit model VERSION` tells the same with every case that went in.",
    ]
    if lineage["code_commit"].endswith("-changed") or lineage["code_commit"] == "unknown":
        blocks.append(f"The code was not a clean commit ({lineage['code_commit']}): it cannot be rebuilt for certain.")
    return Section("How to build it again", tuple(blocks))


def _pairs(columns: tuple[str, str], rows: Iterable[tuple[str, Any]]) -> Table:
    return Table(columns, tuple((name, str(value)) for name, value in rows))


def _cell(text: str) -> str:
    return text.replace("\\", "\\\\").replace("|", "\\|").replace("\n", " ") or "–"


def _kind(block: Block) -> tuple[str, Any]:
    if isinstance(block, str):
        return "text", block
    return {Table: "table", Code: "code"}.get(type(block), "list"), block
