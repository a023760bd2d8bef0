"""The command line `c2l-lab`: corpora, training and benchmarks. Importing this module does not load torch."""

from __future__ import annotations

import typer

from c2l_lab.benchmarks.cli import bench_app
from c2l_lab.corpus.cli import corpus_app
from c2l_lab.train.cli import train_app
from c2l_lsp.errors import C2LError

app = typer.Typer(
    name="c2l-lab",
    help="The laboratory of c2l-lsp: build corpora, train models, run benchmarks.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(corpus_app, name="corpus", help="Build training text from git repositories.")
app.add_typer(train_app, name="train", help="Train tokenizers, base models and hypernetworks.")
app.add_typer(bench_app, name="bench", help="Run benchmarks of models, adapters and speed.")


def main() -> None:
    """Run a command. An expected error prints one line on stderr and exits with code 2."""
    try:
        app()
    except C2LError as error:
        typer.echo(f"c2l-lab: {error}", err=True)
        raise SystemExit(2) from None
