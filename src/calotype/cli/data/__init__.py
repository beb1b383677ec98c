"""`calotype data`: building, converting, checking and embedding data sets; a module a command."""

from __future__ import annotations

import typer

from calotype.cli.data.embed import embed
from calotype.cli.data.emoji import emoji
from calotype.cli.data.ray import RayCommand
from calotype.cli.data.shard import shard
from calotype.cli.data.tokenizer import tokenizer
from calotype.cli.data.verify import stats, verify

_HELP = "Build and inspect training data."
app = typer.Typer(help=_HELP, no_args_is_help=True, rich_markup_mode=None)
for _command in (emoji, shard, verify, embed):
    app.command(cls=RayCommand)(_command)
app.command()(stats)
app.command()(tokenizer)


@app.callback()
def data() -> None:
    """Build and inspect training data."""
