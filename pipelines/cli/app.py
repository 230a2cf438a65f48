"""All verbs in one tree."""

from __future__ import annotations

from typing import Annotated

import typer

from pipelines.cli import (
    audit,
    data,
    data_cards,
    data_out,
    data_questions,
    demo,
    doctor,
    flow,
    model,
    stack,
    stage,
    training,
    withdraw,
)

app = typer.Typer(
    name="segfoundry",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    help="From heterogeneous 2D and 3D medical segmentation datasets to a promoted, text-promptable SAM3 model, "
    "with proof of which cases made it.\n\nStart with `segfoundry demo`; `segfoundry doctor` says what does not "
    "work here. Exit codes: 0 done, 1 ran and found a failure, 2 wrong use or bad input.",
)


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(version("segfoundry"))
        raise typer.Exit


@app.callback()
def _root(
    _show_version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and leave.")
    ] = False,
) -> None:
    """Every verb has its own help: `segfoundry data ingest --help`."""


app.command("demo")(demo.demo)
app.command("doctor")(doctor.doctor)
data.app.command("check")(data_cards.check)
data.app.command("new-card")(data_cards.new_card)
for verb in (data_questions.diff, data_questions.drift, data_questions.leakage, data_out.export, data_out.back):
    data.app.command(verb.__name__)(verb)
app.add_typer(data.app, name="data")
app.command("train")(training.train)
app.command("evaluate")(training.evaluate)
app.add_typer(model.app, name="model")
app.add_typer(audit.app, name="audit")
app.command("withdraw")(withdraw.withdraw)
app.add_typer(flow.app, name="flow")
app.add_typer(stack.app, name="stack")
app.add_typer(stage.app, name="stage", hidden=True)
