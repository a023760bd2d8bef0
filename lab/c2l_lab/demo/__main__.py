"""`python -m c2l_lab.demo [REPO]`: the main job, live. Exit code 0 at the end, 2 when it cannot begin, 1 on the way."""

from __future__ import annotations

import asyncio
import json
import shutil
import tempfile
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from c2l_lab.demo.display import Stage
from c2l_lab.demo.scratch import copy_repository
from c2l_lab.demo.story import Story
from c2l_lsp import config
from c2l_lsp.errors import C2LError, FolderError

_SETTINGS = """\
# Written by the demo for its own server. Buffers are not learned, so that only the edit on disk can teach the new name;
# budgets are long, so that a busy machine shows the whole text; every place may be asked about, whatever follows it.
[adapter]
includeUnsaved = false
[completion]
debounceMs = 0
maxLatencyMs = 20000
maxLatencyInvokedMs = 60000
maxNewTokens = 24
multiline = "never"
maxLineSuffix = 1000
candidates = 5
speculative = false
"""


def show(
    repo: Annotated[Path | None, typer.Argument(help="The repository to show it on; default: this project.")] = None,
    model: Annotated[str, typer.Option(help="Model folder; default: the model of your settings.")] = "",
    as_json: Annotated[bool, typer.Option("--json", help="Print the table as JSON, and nothing else.")] = False,
    keep: Annotated[bool, typer.Option(help="Keep the scratch folder and say where it is.")] = False,
) -> None:
    """Show on a copy of a repository what an editor gets: completions that follow the repository as it changes."""
    console = Console(quiet=as_json, highlight=False)
    scratch = Path(tempfile.mkdtemp(prefix="c2l-demo-")).resolve()
    code = 0
    try:
        story = _prepare(repo or _own_checkout(), scratch, model, console)
        try:
            asyncio.run(story.run())
        except C2LError as error:
            typer.echo(f"c2l-lsp demo: {error}", err=True)
            code = 1
        console.print()
        console.print(story.stage.table())
        if as_json:
            typer.echo(json.dumps({"folder": str(repo or "."), "steps": story.stage.plain()}, indent=2))
    except C2LError as error:
        typer.echo(f"c2l-lsp demo: {error}", err=True)
        code = 2
    finally:
        if keep:
            console.print(f"Kept: {scratch}")
        else:
            shutil.rmtree(scratch, ignore_errors=True)
    raise typer.Exit(code)


def _prepare(source: Path, scratch: Path, model: str, console: Console) -> Story:
    """The copy, and a server environment of its own: nothing of the user's state is read or written."""
    console.print(f"[bold]C2L on a copy of {source.resolve().name}[/bold]")
    copy = copy_repository(source, scratch / source.resolve().name)
    console.print(f"{copy.files} files, {len(copy.python)} of them Python; {copy.text}.\n")
    settings, _ = config.load_user()
    chosen = model or settings.model.path
    file = scratch / "config.toml"
    lines = f"[model]\npath = {json.dumps(chosen)}\nid = {json.dumps(settings.model.id)}\n"
    file.write_text(_SETTINGS + lines, encoding="utf-8")
    environment = {"C2L_CONFIG": str(file), "C2L_STATE_DIR": str(scratch / "state")}
    return Story(copy, Stage(console), environment)


def _own_checkout() -> Path:
    checkout = Path(__file__).resolve().parents[3]
    if not (checkout / "pyproject.toml").is_file():
        raise FolderError("c2l-lsp is installed without its sources here; name a repository to show it on.")
    return checkout


def main() -> None:
    """Entry point."""
    typer.run(show)


if __name__ == "__main__":
    main()
