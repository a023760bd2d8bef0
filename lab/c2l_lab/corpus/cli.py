"""The commands `c2l-lsp corpus …`. Importing this module loads no torch."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

corpus_app = typer.Typer(help="From repositories to clean, licensed, deduplicated text to learn from.")

Out = Annotated[Path, typer.Option("--out", help="Folder that receives the result.")]
Mirror = Annotated[Path, typer.Option(help="Folder of git folders: MIRROR/owner+name/repo.")]


@contextmanager
def _progress(words: str) -> Iterator[Callable[[int, int], None]]:
    """A bar on stderr (stdout stays free for data)."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn(words), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(words, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


@corpus_app.command("build")
def corpus_build(
    list_file: Annotated[Path, typer.Option("--list", help="One owner/name or local git folder a line.")],
    out: Out,
    mirror: Mirror = Path(),
    disjoint_from: Annotated[list[Path] | None, typer.Option(help="A list that must share no owner with this.")] = None,
    against: Annotated[list[Path] | None, typer.Option(help="A built corpus whose files must not come back.")] = None,
    standard_library: Annotated[bool, typer.Option(help="Add the installed standard library (PSF licence).")] = False,
    installed: Annotated[
        Path | None, typer.Option(help="Add a site-packages folder, or one of unpacked wheels.")
    ] = None,
    workers: Annotated[int, typer.Option(min=1, help="Processes that read repositories.")] = 2,
    share: Annotated[float, typer.Option(min=0.01, help="Most text taken from one repository, in MB.")] = 3.0,
) -> None:
    """Read the newest commit of every listed repository, filter, deduplicate, write shards and a manifest.

    Run the same command again to go on after a stop, or when more repositories have arrived.
    """
    from c2l_lab.corpus import corpus, sources

    names = sources.read_list(list_file)
    sources.assert_disjoint(names, disjoint_from or [])
    if standard_library:
        names.append(corpus.STANDARD_LIBRARY)
    with _progress("repositories") as progress:
        made = corpus.build(
            names,
            mirror,
            out,
            against=against or [],
            workers=workers,
            cap=int(share * 1e6),
            progress=progress,
            site=installed,
            apart=disjoint_from or [],
        )
    for name, reason in made["skipped"].items():
        typer.echo(f"skipped {name}: {reason}", err=True)
    typer.echo(
        f"{len(made['repositories'])} repositories, {made['files']} files, {made['bytes'] / 1e6:.1f} MB; "
        f"{len(made['skipped'])} skipped"
    )


@corpus_app.command("stats")
def corpus_stats(folder: Annotated[Path, typer.Argument(help="A built corpus.")]) -> None:
    """Licences, sizes and what was skipped, of a built corpus."""
    from collections import Counter

    from rich.console import Console
    from rich.table import Table

    from c2l_lab.corpus import corpus

    made = corpus.manifest_of(folder)
    skips: Counter[str] = Counter()
    for about in made["repositories"]:
        skips.update(about["skips"])
    table = Table("what", "count", title=str(folder.name))
    table.add_row("repositories", str(len(made["repositories"])))
    table.add_row("files", str(made["files"]))
    table.add_row("MB of text", f"{made['bytes'] / 1e6:.1f}")
    for name, count in Counter(about["licence"] for about in made["repositories"]).most_common():
        table.add_row(f"licence {name}", str(count))
    for reason, count in skips.most_common():
        table.add_row(f"files left out: {reason}", str(count))
    for reason, count in Counter(made["skipped"].values()).most_common():
        table.add_row(f"repositories left out: {reason}", str(count))
    Console().print(table)


@corpus_app.command("tokens")
def corpus_tokens(
    folder: Annotated[Path, typer.Argument(help="A built corpus.")],
    tokenizer_folder: Annotated[Path, typer.Option("--tokenizer", help="Folder of a trained tokenizer.")],
) -> None:
    """Write token files beside the text, and count the tokens of every repository in the manifest."""
    from c2l_lab.corpus import tokens
    from c2l_lab.corpus.tokenizer import CodeTokenizer

    with _progress("files") as progress:
        made = tokens.tokenise(folder, CodeTokenizer(tokenizer_folder), progress)
    typer.echo(f"{made['tokens']['count'] / 1e6:.1f}M tokens in {len(made['tokens']['shards'])} files")


@corpus_app.command("commits")
def corpus_commits(
    list_file: Annotated[Path, typer.Option("--list", help="One owner/name or local git folder a line.")],
    out: Out,
    mirror: Mirror = Path(),
    most_commits: Annotated[int, typer.Option(min=1, help="Newest commits of a repository.")] = 2000,
    workers: Annotated[int, typer.Option(min=1, help="Processes that read repositories.")] = 2,
) -> None:
    """Write the histories of the listed repositories as streams of commits with the files they change.

    Run the same command again to go on after a stop.
    """
    from c2l_lab.corpus import commits, sources

    with _progress("repositories") as progress:
        made = commits.build(
            sources.read_list(list_file), mirror, out, workers=workers, most_commits=most_commits, progress=progress
        )
    for name, reason in made["skipped"].items():
        typer.echo(f"skipped {name}: {reason}", err=True)
    typer.echo(f"{len(made['repositories'])} histories; {len(made['skipped'])} skipped")
