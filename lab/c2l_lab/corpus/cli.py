"""The commands `c2l-lab corpus …`. Importing this module does not load torch."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

corpus_app = typer.Typer(help="Build training text from git repositories: filtered, licence-checked, deduplicated.")

Out = Annotated[Path, typer.Option("--out", help="Output folder.")]
Mirror = Annotated[Path, typer.Option(help="Folder of repositories: MIRROR/owner+name/repo.")]


@contextmanager
def _progress(label: str) -> Iterator[Callable[[int, int], None]]:
    """Show a progress bar on stderr; stdout is for results."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn(label), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(label, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


@corpus_app.command("build")
def corpus_build(
    list_file: Annotated[
        Path, typer.Option("--list", help="List of repositories: one owner/name or local git folder per line.")
    ],
    out: Out,
    mirror: Mirror = Path(),
    disjoint_from: Annotated[
        list[Path] | None, typer.Option(help="Another list; fail if it shares an owner with this one.")
    ] = None,
    against: Annotated[
        list[Path] | None, typer.Option(help="A built corpus; exclude its files and near-duplicates of them.")
    ] = None,
    standard_library: Annotated[
        bool, typer.Option(help="Add the standard library of this Python (PSF licence).")
    ] = False,
    installed: Annotated[
        Path | None,
        typer.Option(help="Add the distributions of a site-packages folder or a folder of unpacked wheels."),
    ] = None,
    workers: Annotated[int, typer.Option(min=1, help="Processes that read repositories.")] = 2,
    share: Annotated[float, typer.Option(min=0.01, help="Largest amount of text from one repository, in MB.")] = 3.0,
) -> None:
    """Build a text corpus from the newest commit of each listed repository.

    Run the same command again to resume an interrupted build or to add new repositories.
    """
    from c2l_lab.corpus import corpus, sources

    names = sources.read_list(list_file)
    sources.require_disjoint(names, disjoint_from or [])
    if standard_library:
        names.append(corpus.STANDARD_LIBRARY)
    with _progress("repositories") as progress:
        made = corpus.build(
            names,
            mirror,
            out,
            against=against or [],
            workers=workers,
            max_bytes=int(share * 1e6),
            progress=progress,
            site=installed,
            disjoint_from=disjoint_from or [],
        )
    for name, reason in made["skipped"].items():
        typer.echo(f"skipped {name}: {reason}", err=True)
    typer.echo(
        f"{len(made['repositories'])} repositories, {made['files']} files, {made['bytes'] / 1e6:.1f} MB; "
        f"{len(made['skipped'])} skipped"
    )


@corpus_app.command("stats")
def corpus_stats(folder: Annotated[Path, typer.Argument(help="A built corpus.")]) -> None:
    """Print the licences and sizes of a built corpus, and the number of skipped files by reason."""
    from collections import Counter

    from rich.console import Console
    from rich.table import Table

    from c2l_lab.corpus import corpus

    made = corpus.read_manifest(folder)
    skips: Counter[str] = Counter()
    for repository in made["repositories"]:
        skips.update(repository["skips"])
    table = Table("what", "count", title=str(folder.name))
    table.add_row("repositories", str(len(made["repositories"])))
    table.add_row("files", str(made["files"]))
    table.add_row("MB of text", f"{made['bytes'] / 1e6:.1f}")
    for name, count in Counter(repository["licence"] for repository in made["repositories"]).most_common():
        table.add_row(f"licence {name}", str(count))
    for reason, count in skips.most_common():
        table.add_row(f"files skipped: {reason}", str(count))
    for reason, count in Counter(made["skipped"].values()).most_common():
        table.add_row(f"repositories skipped: {reason}", str(count))
    Console().print(table)


@corpus_app.command("tokens")
def corpus_tokens(
    folder: Annotated[Path, typer.Argument(help="A built corpus.")],
    tokenizer_folder: Annotated[Path, typer.Option("--tokenizer", help="Folder of a trained tokenizer.")],
) -> None:
    """Write token files beside the text shards, and add token counts to the manifest."""
    from c2l_lab.corpus import tokens
    from c2l_lab.corpus.tokenizer import CodeTokenizer

    with _progress("files") as progress:
        made = tokens.tokenise(folder, CodeTokenizer(tokenizer_folder), progress)
    typer.echo(f"{made['tokens']['count'] / 1e6:.1f}M tokens in {len(made['tokens']['shards'])} files")


@corpus_app.command("commits")
def corpus_commits(
    list_file: Annotated[
        Path, typer.Option("--list", help="List of repositories: one owner/name or local git folder per line.")
    ],
    out: Out,
    mirror: Mirror = Path(),
    most_commits: Annotated[int, typer.Option(min=1, help="Number of newest commits per repository.")] = 2000,
    workers: Annotated[int, typer.Option(min=1, help="Processes that read repositories.")] = 2,
) -> None:
    """Write the history of each listed repository as a stream of commits with the changed files.

    Run the same command again to resume an interrupted build.
    """
    from c2l_lab.corpus import commits, sources

    with _progress("repositories") as progress:
        made = commits.build(
            sources.read_list(list_file), mirror, out, workers=workers, most_commits=most_commits, progress=progress
        )
    for name, reason in made["skipped"].items():
        typer.echo(f"skipped {name}: {reason}", err=True)
    typer.echo(f"{len(made['repositories'])} commit streams; {len(made['skipped'])} skipped")
