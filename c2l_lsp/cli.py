"""The command line `c2l-lsp`. Commands import what they need when they run, so `--help` and `serve` start fast."""

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

Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]
ModelOption = Annotated[
    str,
    typer.Option(
        "--model",
        help="Model name on Hugging Face, a folder, a GGUF file, or a name such as ollama:qwen2.5-coder:0.5b. "
        "Default: c2l.model in your settings.",
    ),
]


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"c2l-lsp {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    del version


@app.command()
def serve(
    stdio: Annotated[
        bool, typer.Option("--stdio", help="Use stdin and stdout. This is the default and the only transport.")
    ] = True,
) -> None:
    """Run the language server. Editors start this command."""
    del stdio
    from c2l_lsp.server.app import serve as run

    raise typer.Exit(run())


@app.command()
def complete(
    where: Annotated[str, typer.Argument(metavar="FILE:LINE:COL", help="Cursor position. Line and column start at 1.")],
    folder: Annotated[
        Path | None, typer.Option(help="Workspace folder. Default: the git repository of the file.")
    ] = None,
    adapter: Annotated[
        bool, typer.Option("--adapter/--no-adapter", help="Use the repository's adapter, or the base model alone.")
    ] = True,
    model: ModelOption = "",
    max_new_tokens: Annotated[int, typer.Option(help="Maximum length of the completion, in tokens.")] = 64,
    as_json: Json = False,
) -> None:
    """Print the completion at a position, as an editor would request it."""
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
    folder: Annotated[Path, typer.Argument(help="Folder of the repository.")],
    out: Annotated[Path, typer.Option(help="Directory to write (adapter_config.json, adapter_model.safetensors).")],
    rank: Annotated[int, typer.Option(help="Rank of the exported LoRA. 0: the smallest rank that is exact.")] = 0,
    deep: Annotated[
        bool,
        typer.Option(
            "--deep", help="Also fine-tune a LoRA by gradient descent. It is used only if validation prefers it."
        ),
    ] = False,
    deep_steps: Annotated[int, typer.Option(min=0, help="Number of fine-tuning steps. 0: chosen automatically.")] = 0,
    model: ModelOption = "",
    as_json: Json = False,
) -> None:
    """Generate a repository's adapter and export it for `peft.PeftModel.from_pretrained`."""
    from c2l_lsp.engine import wire
    from c2l_lsp.engine.session import Session

    root = folder.resolve()
    with Session(_settings(model), _progress(quiet=as_json)) as session:
        info = session.open(root)
        if deep:
            info = session.finetune(str(root), deep_steps)
            typer.echo(f"Fine-tuning: {info.deep}", err=True)
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
        f"Exported to {out}: rank {done.rank}, relative error of ΔW {done.error:.2e}, {info.files} files."
        + (f" The kNN memory ({info.recalled:,} tokens) is not part of the export." if info.recalled else ""),
    )


@app.command()
def status(as_json: Json = False) -> None:
    """List the saved state of all folders on this machine, and where it is stored."""
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
def forget(folder: Annotated[Path, typer.Argument(help="Folder whose state to delete.")]) -> None:
    """Delete all saved state of a folder."""
    from c2l_lsp.engine.storage.inventory import forget as run

    freed = run(folder)
    deleted = f"Deleted the state of {folder}: {freed / 2**20:.1f} MB."
    typer.echo(deleted if freed else f"There is no saved state of {folder}.")


@app.command()
def doctor(as_json: Json = False) -> None:
    """Check the installation and print a fix for each problem. Exit code 1 if there is a problem."""
    from c2l_lsp.doctor import run_checks

    checks = run_checks()
    if as_json:
        typer.echo(json.dumps([check.to_dict() for check in checks], indent=2))
    else:
        for check in checks:
            typer.echo(f"{'ok  ' if check.ok else 'FAIL'} {check.name}: {check.text}")
            if check.fix:
                typer.echo(f"     → {check.fix}")
    raise typer.Exit(0 if all(check.ok for check in checks) else 1)


@app.command()
def models(
    measure: Annotated[
        bool,
        typer.Option("--measure", help="Load each model that is ready, and measure the time of a token (5 s each)."),
    ] = False,
    as_json: Json = False,
) -> None:
    """List the models on this machine: shipped ones, Hugging Face cache, Ollama, LM Studio."""
    from c2l_lsp.doctor import model_rows

    rows: list[dict[str, Any]] = [{**row, "ms_a_token": None} for row in model_rows()]
    for row in rows if measure else []:
        if row["ready"] and row["architecture"]:
            _measure(row)
    if as_json:
        typer.echo(json.dumps(rows, indent=2))
        return
    from rich.console import Console
    from rich.table import Column, Table

    table = Table(Column("model", overflow="fold"), "GB", "architecture", "fill-in-the-middle", "ms a token", "note")
    for row in rows:
        speed = "" if row["ms_a_token"] is None else f"{row['ms_a_token']:.1f}"
        note = row["note"] or ("" if row["ready"] else "Converted at the first use.")
        table.add_row(row["name"], f"{row['gb']:.2f}", row["architecture"], row["fim"] or "no", speed, note)
    Console().print(table)


def _measure(row: dict[str, Any]) -> None:
    """Set the time of a token in a row of `models`, or the reason why there is none as its note."""
    from c2l_lsp.engine.session import Session

    try:
        with Session(_settings(row["name"])) as session:
            row["ms_a_token"] = session.ms_a_token() or None
    except C2LError as error:
        row["note"] = str(error)


def _settings(model: str) -> Settings:
    settings, errors = load_user()
    for error in errors:
        typer.echo(str(error), err=True)
    if model:
        key = "path" if Path(model).exists() or ":" in model else "id"  # no name of the Hub has a colon
        settings, errors = merge(settings, {"model": {key: model}}, source="--model", machine=True)
        if errors:
            raise errors[0]
    return settings


def _cursor(where: str) -> tuple[Path, str, str]:
    """The file and its text before and after FILE:LINE:COL. RequestError if the position does not exist."""
    parts = where.rsplit(":", 2)
    if len(parts) != 3 or not (parts[1].isdecimal() and parts[2].isdecimal()):
        raise RequestError(f"{where} is not of the form FILE:LINE:COL, such as src/app.py:12:5.")
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
    """A listener that prints warnings and, on a terminal, the progress of long work."""
    from c2l_lsp.engine import wire

    def listen(event: wire.Progress | wire.AdapterChanged | wire.Trouble) -> None:
        if isinstance(event, wire.Trouble):
            typer.echo(event.message, err=True)
        elif isinstance(event, wire.Progress) and not quiet and sys.stderr.isatty():
            end = "\n" if event.finished else ""
            typer.echo(f"\r{event.task}: {event.done}/{event.total} {event.unit}   {end}", nl=False, err=True)

    return listen


def _print_completion(answer: wire.Completion, info: wire.AdapterInfo | None, as_json: bool) -> None:
    values: dict[str, Any] = {
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
    _report(values, as_json, values["text"] or f"({answer.reason})")


def _report(values: dict[str, Any], as_json: bool, text: str) -> None:
    typer.echo(json.dumps(values, indent=2) if as_json else text)


def _moved_to_lab(context: typer.Context) -> None:
    """Report the new name of a command that moved to c2l-lab."""
    verb = context.info_name
    raise RequestError(f"`c2l-lsp {verb}` is now `c2l-lab {verb}`. Install the c2l-lab distribution (lab/) to run it.")


for _verb in ("bench", "train", "corpus"):
    app.command(
        _verb,
        hidden=True,
        add_help_option=False,
        context_settings={"allow_extra_args": True, "ignore_unknown_options": True},
    )(_moved_to_lab)


def main() -> None:
    """Run the command line. A C2LError is printed on stderr as one sentence, with exit code 2."""
    try:
        app()
    except C2LError as error:
        typer.echo(f"c2l-lsp: {error}", err=True)
        raise SystemExit(2) from None


if __name__ == "__main__":
    main()
