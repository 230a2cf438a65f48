"""`docs/benchmarks.md` from the figures of one run: good ones and bad ones, with their spread."""

from __future__ import annotations

from itertools import groupby
from typing import Any

Figures = dict[str, Any]

_HEAD = """# Benchmarks

Written by `make bench`; nothing here is edited by hand. Medians; what stands in brackets is the spread from the
slowest to the fastest counted run.
"""
_INGEST = """## Ingest, beside what a user would write

Samples (slices or pictures) written a second. Every contestant reads the same files from a warm page cache with
two processes (the line that says so has one), all in one run, in turns, after one round that is not counted.
Ours is the whole of `segfoundry data ingest` but DVC: SHA-256 of every file, all checks, quarantine, case cache,
instances and run lengths, content hashes, shards, manifest, tables and card page. The peers write image and mask a
sample and check nothing; *own size* writes the pixels as they are, as ours does, *resized* makes the fixed size
that most preparation scripts make. The ratio is ours through Ray over theirs, round by round.
"""
_CODECS = """## Codecs of stored pictures

`harmonize.image_codec`: what a picture costs on average that did not come as JPEG, one thread, training samples of
the demo's datasets.
"""
_REMEMBERED = """## Work that is remembered

One case added to those that were there. Work is counted, not timed: cases that were read, shards that were put
together, shards whose bytes changed.
"""
_MANIFEST = """## Questions to a large manifest

Each question in a process of its own, from the files alone; peak memory is that process's. At most 3 s and 4 GiB.
"""


def markdown(figures: Figures) -> str:
    """The page."""
    parts = [_HEAD, _machine(figures)]
    if "ingest" in figures:
        parts += [_INGEST, *_ingest(figures["ingest"])]
    if "codecs" in figures:
        parts += [_CODECS, _codecs(figures["codecs"])]
    if "remembered" in figures:
        parts += [_REMEMBERED, _remembered(figures["remembered"])]
    if "manifest" in figures:
        parts += [_MANIFEST, _manifest(figures["manifest"])]
    return "\n".join(part.strip("\n") + "\n" for part in parts)


def _machine(figures: Figures) -> str:
    one = figures["machine"]
    versions = ", ".join(f"{name} {value}" for name, value in one["versions"].items())
    peers = ", ".join(f"{name} {value}" for name, value in one.get("peers", {}).items())
    lines = [
        f"{one['date']}: {one['cpu'] or one['system']}, {one['cores']} cores, {one['memory_bytes'] / 2**30:.0f} GiB; "
        f"load before the run {one['load_before']}; {figures['repetitions']} counted runs each; "
        f"{figures['total_s'] / 60:.1f} minutes in all.",
        f"Python {one['python']}, {versions}.",
    ]
    return "\n".join([*lines, f"Peers: {peers}."] if peers else lines)


def _ingest(rows: list[dict[str, Any]]) -> list[str]:
    tables = []
    for title, members in groupby(rows, key=lambda row: row["title"]):
        suite = list(members)
        samples = suite[0]["samples"]
        lines = [
            f"### {title[0].upper()}{title[1:]}: {samples:,} samples",
            "",
            "| who | samples / s | MB written | ours is faster | asked |",
            "| --- | ---: | ---: | ---: | --- |",
        ]
        for row in suite:
            who = row["contestant_title"] + ("" if row["samples"] == samples else f" ({row['samples']:,} samples)")
            ratio = f"{row['ratio']:.1f} × ({row['ratio_low']:.1f}–{row['ratio_high']:.1f})"
            asked = f"≥ {row['target']:g} ×: {'met' if row['met'] else 'NOT met'}" if row["target"] else ""
            lines.append(
                f"| {who} | {row['samples_per_s']:,.0f} ({row['low']:,.0f}–{row['high']:,.0f}) "
                f"| {row['bytes'] / 1e6:,.0f} | {'' if row['contestant'] == 'ours' else ratio} | {asked} |"
            )
        tables.append("\n".join(lines))
    return tables


def _codecs(rows: list[dict[str, Any]]) -> str:
    lines = ["| pictures | codec | kB | ms to write | ms to read |", "| --- | --- | ---: | ---: | ---: |"]
    lines += [
        f"| {row['kind']} ({row['pictures']}) | {row['codec']} | {row['kb']:.1f} | {row['encode_ms']:.2f} "
        f"| {row['decode_ms']:.2f} |"
        for row in rows
    ]
    return "\n".join(lines)


def _remembered(rows: list[dict[str, Any]]) -> str:
    lines = [
        "| what | cases read | shards put together | shards changed | of | seconds |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    lines += [
        f"| {row['what']} | {row['cases_read']:,} | {row['shards_made']:,} | {row['shards_changed']:,} "
        f"| {row['shards']:,} | {row['seconds']:.2f} |"
        for row in rows
    ]
    return "\n".join(lines)


def _manifest(rows: list[dict[str, Any]]) -> str:
    lines = [
        "| question | rows | file | seconds | peak memory | asked |",
        "| --- | ---: | ---: | ---: | ---: | --- |",
    ]
    for row in rows:
        start = f"| {row['question']} | {row['rows']:,} | {row['file_bytes'] / 1e6:,.0f} MB "
        verdict = "met" if row["met"] else "NOT met"
        if "failed" in row:
            lines.append(f"{start}| {row['failed']} | | {verdict} |")
        else:
            lines.append(
                f"{start}| {row['median_s']:.2f} ({row['seconds'][0]:.2f}–{row['seconds'][-1]:.2f}) "
                f"| {row['peak_bytes'] / 2**30:.2f} GiB | {verdict} |"
            )
    return "\n".join(lines)
