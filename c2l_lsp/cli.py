"""The command line `c2l-lsp`. Commands import what they need when they run: `--help` and `serve` stay quick."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from c2l_lsp import __version__
from c2l_lsp.config import Settings, load_user, merge
from c2l_lsp.errors import C2LError, RequestError

if TYPE_CHECKING:
    from c2l_lsp.engine import wire

app = typer.Typer(
    name="c2l-lsp",
    help="Code completion that knows your repository without reading it into the prompt.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of text.")]
ModelOption = Annotated[str, typer.Option("--model", help="Hugging Face name or folder; default: your settings.")]


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"c2l-lsp {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    del version


@app.command()
def serve(
    stdio: Annotated[bool, typer.Option("--stdio", help="Speak LSP over stdin and stdout (the only way).")] = True,
) -> None:
    """Run the language server; editors start this."""
    del stdio
    from c2l_lsp.server.app import serve as run

    raise typer.Exit(run())


@app.command()
def complete(
    where: Annotated[str, typer.Argument(metavar="FILE:LINE:COL", help="Cursor; line and column count from 1.")],
    folder: Annotated[Path | None, typer.Option(help="Workspace folder; default: the file's git repository.")] = None,
    adapter: Annotated[
        bool, typer.Option("--adapter/--no-adapter", help="With the repository's adapter or bare.")
    ] = True,
    model: ModelOption = "",
    max_new_tokens: Annotated[int, typer.Option(help="Longest completion in tokens.")] = 64,
    as_json: Json = False,
) -> None:
    """Complete the code at a cursor, as an editor would ask for it."""
    from c2l_lsp.engine import wire
    from c2l_lsp.engine.session import Session

    path, prefix, suffix = _cursor(where)
    settings = _settings(model)
    root = (folder or _repository(path)).resolve()
    with Session(settings, _progress(quiet=as_json)) as session:
        info = session.open(root) if adapter else None
        answer = session.complete(
            wire.Complete(
                folder=str(root) if adapter else "",
                path=path.name,
                language="python",
                prefix=prefix,
                suffix=suffix,
                invoked=True,
                adapter=adapter,
                max_new_tokens=max_new_tokens,
                max_latency_ms=settings.completion.max_latency_invoked_ms,
                multiline=settings.completion.multiline,
                max_context_tokens=settings.context.max_tokens,
            )
        )
    _print_completion(answer, info, as_json)


@app.command()
def adapt(
    folder: Annotated[Path, typer.Argument(help="The repository.")],
    out: Annotated[
        Path, typer.Option(help="PEFT directory to write (adapter_config.json, adapter_model.safetensors).")
    ],
    rank: Annotated[int, typer.Option(help="Rank of the exported LoRA; 0 is the smallest exact one.")] = 0,
    deep: Annotated[
        bool, typer.Option("--deep", help="Also train a LoRA by gradient descent; kept only if it wins.")
    ] = False,
    deep_steps: Annotated[int, typer.Option(min=0, help="Steps of that training; 0 chooses them.")] = 0,
    model: ModelOption = "",
    as_json: Json = False,
) -> None:
    """Make a repository's adapter and export it for `peft.PeftModel.from_pretrained`."""
    from c2l_lsp.engine import wire
    from c2l_lsp.engine.session import Session

    root = folder.resolve()
    with Session(_settings(model), _progress(quiet=as_json)) as session:
        info = session.open(root)
        if deep:
            info = session.finetune(str(root), deep_steps)
            typer.echo(f"deep adapter: {info.deep}", err=True)
        done = session.engine.export(wire.Export(folder=str(root), out=str(out), rank=rank))
        base = session.engine.model.id
    _report(
        {
            "out": str(out),
            "base": base,
            "generation": done.generation,
            "rank": done.rank,
            "relative_error": done.error,
            "files": info.files,
            "scale": info.scale,
            "deep": info.deep,
        },
        as_json,
        f"{out}: rank {done.rank}, relative error of ΔW {done.error:.2e}, from {info.files} files of {root.name}."
        + (f" What the server recalls beside it ({info.recalled} tokens) is no LoRA." if info.recalled else ""),
    )


@app.command()
def status(as_json: Json = False) -> None:
    """Show what has been learned on this machine, folder by folder, and where it is kept."""
    from c2l_lsp.engine.storage.inventory import inventory

    rows = inventory()
    if as_json:
        typer.echo(json.dumps(rows, indent=2))
        return
    from rich.console import Console
    from rich.table import Table

    table = Table("folder", "generation", "files", "MB on disk", "updated", title=f"State in {rows['root']}")
    for row in rows["folders"]:
        table.add_row(row["folder"], str(row["generation"]), str(row["files"]), f"{row['mb']:.1f}", row["updated"])
    Console().print(table)


@app.command()
def forget(folder: Annotated[Path, typer.Argument(help="The folder whose state is deleted.")]) -> None:
    """Delete everything that was learned from a folder."""
    from c2l_lsp.engine.storage.inventory import forget as run

    freed = run(folder)
    typer.echo(f"Forgot {folder}: {freed / 2**20:.1f} MB deleted." if freed else f"Nothing was kept about {folder}.")


@app.command()
def doctor(as_json: Json = False) -> None:
    """Check what would stop completions from working, and say how to fix it. Exit code 1 if anything would."""
    from c2l_lsp.doctor import examine

    found = examine()
    if as_json:
        typer.echo(json.dumps([check.plain() for check in found], indent=2))
    else:
        for check in found:
            typer.echo(f"{'ok  ' if check.ok else 'FAIL'} {check.name}: {check.text}")
            if check.fix:
                typer.echo(f"     → {check.fix}")
    raise typer.Exit(0 if all(check.ok for check in found) else 1)


def _settings(model: str) -> Settings:
    settings, errors = load_user()
    for error in errors:
        typer.echo(str(error), err=True)
    if model:
        key = "path" if Path(model).is_dir() else "id"
        settings, errors = merge(settings, {"model": {key: model}}, source="--model", machine=True)
        if errors:
            raise errors[0]
    return settings


def _cursor(where: str) -> tuple[Path, str, str]:
    """The file and its text before and after FILE:LINE:COL. RequestError if there is no such place."""
    parts = where.rsplit(":", 2)
    if len(parts) != 3 or not (parts[1].isdecimal() and parts[2].isdecimal()):
        raise RequestError(f"{where} is not FILE:LINE:COL, such as src/app.py:12:5.")
    path, line, column = Path(parts[0]), int(parts[1]), int(parts[2])
    try:
        with path.open(encoding="utf-8", newline="") as file:
            lines = file.read().split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise RequestError(f"{path} cannot be read: {error}.") from error
    if not 1 <= line <= len(lines) or not 1 <= column <= len(lines[line - 1]) + 1:
        raise RequestError(f"{path} has no line {line}, column {column}.")
    before = "\n".join([*lines[: line - 1], lines[line - 1][: column - 1]])
    after = "\n".join([lines[line - 1][column - 1 :], *lines[line:]])
    return path, before, after


def _repository(path: Path) -> Path:
    start = path.resolve().parent
    return next((folder for folder in (start, *start.parents) if (folder / ".git").exists()), start)


def _progress(*, quiet: bool) -> Any:  # noqa: ANN401 - a listener for engine events
    """Prints troubles, and a line that counts while something long goes on (terminals only)."""
    from c2l_lsp.engine import wire

    def listen(event: wire.Progress | wire.AdapterChanged | wire.Trouble) -> None:
        if isinstance(event, wire.Trouble):
            typer.echo(event.message, err=True)
        elif isinstance(event, wire.Progress) and not quiet and sys.stderr.isatty():
            end = "\n" if event.finished else ""
            typer.echo(f"\r{event.task}: {event.done}/{event.total} {event.unit}   {end}", nl=False, err=True)

    return listen


def _print_completion(answer: wire.Completion, info: wire.AdapterInfo | None, as_json: bool) -> None:
    plain: dict[str, Any] = {
        "text": answer.texts[0] if answer.texts else "",
        "generation": answer.generation,
        "prompt_tokens": answer.prompt_tokens,
        "new_tokens": answer.new_tokens,
        "ms": {name: round(getattr(answer.ms, name), 2) for name in ("prefill", "decode", "total")},
        "adapter": None
        if info is None
        else {
            "kind": info.kind,
            "files": info.files,
            "scale": info.scale,
            "norm": info.norm,
            "recalled": info.recalled,
            "message": info.message,
        },
        "stop": answer.stop,
        "reason": answer.reason,
    }
    _report(plain, as_json, plain["text"] or f"({answer.reason})")


def _report(plain: dict[str, Any], as_json: bool, text: str) -> None:
    typer.echo(json.dumps(plain, indent=2) if as_json else text)


def _moved(context: typer.Context) -> None:
    """Answer a verb that moved to the laboratory with its new name."""
    verb = context.info_name
    raise RequestError(f"`c2l-lsp {verb}` is `c2l-lab {verb}` now. Install the c2l-lab distribution (lab/) to run it.")


for _verb in ("bench", "train", "corpus"):
    app.command(
        _verb,
        hidden=True,
        add_help_option=False,
        context_settings={"allow_extra_args": True, "ignore_unknown_options": True},
    )(_moved)


def main() -> None:
    """Run; an error of the closed set is one sentence on stderr and exit code 2."""
    try:
        app()
    except C2LError as error:
        typer.echo(f"c2l-lsp: {error}", err=True)
        raise SystemExit(2) from None


if __name__ == "__main__":
    main()
