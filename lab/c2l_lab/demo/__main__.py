"""`python -m c2l_lab.demo [REPO]`. Exit code 0 if all steps ran, 1 if one failed, 2 if the demo could not start."""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from c2l_lab.demo.copy import copy_repository
from c2l_lab.demo.display import Display
from c2l_lab.demo.story import Story
from c2l_lsp import config
from c2l_lsp.errors import C2LError, FolderError

_SETTINGS = """\
# Settings of the demo's own server. Unsaved buffers are not embedded, so that only the edit on disk introduces the new
# name. Time limits are long, so that a busy machine shows whole completions, and completions are allowed everywhere in
# a line. The token index holds every file; neural keys are computed for a part only, so that the demo is short.
[adapter]
includeUnsaved = false
maxIndexKb = 64
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
    repo: Annotated[Path | None, typer.Argument(help="Repository to run on. Default: this project.")] = None,
    model: Annotated[str, typer.Option(help="Model folder. Default: the model of your settings.")] = "",
    as_json: Annotated[bool, typer.Option("--json", help="Print only the table, as JSON.")] = False,
    keep: Annotated[bool, typer.Option(help="Keep the scratch folder and print its path.")] = False,
) -> None:
    """Run the server on a copy of a repository and show how its completions follow an edit."""
    console = Console(quiet=as_json, highlight=False)
    scratch = Path(tempfile.mkdtemp(prefix="c2l-demo-")).resolve()
    code = 0
    try:
        story = _prepare(repo or _own_checkout(), scratch, model, console)
        try:
            story.run()
        except (C2LError, TimeoutError) as error:
            typer.echo(f"demo: {error}", err=True)
            code = 1
        console.print()
        console.print(story.display.table())
        for line in story.display.memorable:
            console.print(f"[bold]•[/bold] {line}")
        if as_json:
            typer.echo(json.dumps({"folder": str(repo or "."), "steps": story.display.plain()}, indent=2))
    except C2LError as error:
        typer.echo(f"demo: {error}", err=True)
        code = 2
    finally:
        if keep:
            console.print(f"Scratch folder: {scratch}")
        else:
            shutil.rmtree(scratch, ignore_errors=True)
    raise typer.Exit(code)


def _prepare(source: Path, scratch: Path, model: str, console: Console) -> Story:
    """Copy the repository and set up an environment in which no state of the user is read or written."""
    console.print(f"[bold]c2l-lsp on a copy of {source.resolve().name}[/bold]")
    copy = copy_repository(source, scratch / source.resolve().name)
    console.print(f"{copy.files} files, {len(copy.python)} of them Python; {copy.description}\n")
    settings, _ = config.load_user()
    file = scratch / "config.toml"
    lines = f"[model]\npath = {json.dumps(model or settings.model.path)}\nid = {json.dumps(settings.model.id)}\n"
    file.write_text(_SETTINGS + lines, encoding="utf-8")
    environment = {"C2L_CONFIG": str(file), "C2L_STATE_DIR": str(scratch / "state")}
    return Story(copy, Display(console), environment)


def _own_checkout() -> Path:
    checkout = Path(__file__).resolve().parents[3]
    if not (checkout / "pyproject.toml").is_file():
        raise FolderError("The sources of c2l-lsp are not here; name a repository to run the demo on.")
    return checkout


def main() -> None:
    """Entry point."""
    typer.run(show)


if __name__ == "__main__":
    main()
