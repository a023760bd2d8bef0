"""Every setting: its type, default, range, meaning and who may set it. Read once, immutable, one table.

Settings are frozen msgspec structs with camelCase keys, so that the same definitions check a user's file, an editor's
answer to `workspace/configuration`, and generate the tables in package.json and README. Later sources win:
defaults → user file → workspace settings. A wrong key or value is reported by name and skipped; the rest still works.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias

import msgspec
from msgspec import Meta, Struct, field
from platformdirs import user_config_path, user_state_path

from c2l_lsp.errors import SettingError
from c2l_lsp.tightened import REFUSED, TIGHTENED, laxer

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

Fraction: TypeAlias = Annotated[float, Meta(ge=0.0)]


def _i(low: int, high: int, text: str) -> Meta:
    return Meta(ge=low, le=high, description=text)


class _Group(Struct, frozen=True, kw_only=True, rename="camel", forbid_unknown_fields=True):
    """A named group of settings."""


class Completion(_Group, frozen=True, kw_only=True):
    """When a completion is asked for, how long it may take and what it may look like."""

    trigger: Annotated[
        Literal["automatic", "manual"],
        Meta(description="Show completions while typing, or only on the trigger command."),
    ] = "automatic"
    debounce_ms: Annotated[int, _i(0, 5000, "Quiet time after a keystroke before work starts, in ms.")] = 75
    max_latency_ms: Annotated[
        int,
        _i(20, 60000, "Budget of an automatic completion in ms; a quarter is for writing, however long reading took."),
    ] = 300
    max_latency_invoked_ms: Annotated[int, _i(20, 120000, "Budget of an explicitly asked completion in ms.")] = 2000
    max_new_tokens: Annotated[int, _i(1, 1024, "Longest completion, in tokens.")] = 64
    multiline: Annotated[
        Literal["auto", "always", "never"],
        Meta(description="auto: several lines only when nothing but closers follows the cursor on its line."),
    ] = "auto"
    candidates: Annotated[int, _i(1, 8, "How many different completions an explicit request returns.")] = 3
    max_line_suffix: Annotated[
        int, _i(0, 1000, "No automatic completion when more than this many characters follow the cursor on its line.")
    ] = 8
    min_chars: Annotated[int, _i(0, 100, "No automatic completion before this many characters stand on the line.")] = 0
    speculative: Annotated[bool, Meta(description="After a completion is shown, compute the next one ahead.")] = True
    cache_size: Annotated[int, _i(0, 100000, "How many results are kept for typing back and forth.")] = 250
    in_comments: Annotated[bool, Meta(description="Complete inside comments too.")] = True
    min_confidence: Annotated[
        float,
        Meta(
            ge=0.0, le=1.0,
            description="Least probability of being right for a line that is shown unasked; "
            "below it only the sure part of the line is. 0 shows every guess.",
        ),
    ] = 0.1  # fmt: skip


class Context(_Group, frozen=True, kw_only=True):
    """How much of the open file goes into the prompt. No other file ever does."""

    max_tokens: Annotated[int, _i(16, 131072, "Longest prompt in tokens (text before and after the cursor).")] = 1536


class Adapter(_Group, frozen=True, kw_only=True):
    """The repository's adapter: which hypernetwork makes it and how it follows edits."""

    enable: Annotated[bool, Meta(description="Adapt the model to the repository.")] = True
    hypernetwork: Annotated[
        Literal["auto", "memory", "evo", "static", "none"],
        Meta(description="Which hypernetwork makes the adapter; auto takes the best measured one for the model."),
    ] = "auto"
    update_delay_ms: Annotated[int, _i(0, 600000, "Quiet time after a file change before it is learned, in ms.")] = 500
    max_delay_ms: Annotated[int, _i(0, 3600000, "Longest a changed file waits while changes go on, in ms.")] = 5000
    include_unsaved: Annotated[bool, Meta(description="Learn from unsaved buffers too.")] = True
    use_git_history: Annotated[
        bool, Meta(description="Let evo replay the git history when a folder is opened for the first time.")
    ] = True
    history_commits: Annotated[int, _i(0, 10000, "How many commits of the main line evo replays; 0 is none.")] = 64
    scale: Annotated[float, Meta(ge=0.0, le=4.0, description="Strength of the adapter; 0 is the bare model.")] = 1.0
    max_index_kb: Annotated[
        int, _i(16, 1048576, "How much of a folder's text the state is made from, in kB; a larger folder is sampled.")
    ] = 256


class Files(_Group, frozen=True, kw_only=True):
    """Which files may be read at all. This one filter stands before state, prompt, training and log."""

    exclude: Annotated[list[str], Meta(description="More patterns to leave out, in .gitignore syntax.")] = field(
        default_factory=list
    )
    respect_gitignore: Annotated[bool, Meta(description="Leave out what git ignores.")] = True
    ignore_file: Annotated[str, Meta(description="Name of the project's own ignore file.")] = ".c2lignore"
    max_size_kb: Annotated[int, _i(1, 65536, "Larger files are left out, in kB.")] = 512
    languages: Annotated[list[str], Meta(description="Languages the adapter learns from, by LSP language id.")] = field(
        default_factory=lambda: ["python"]
    )


class Model(_Group, frozen=True, kw_only=True):
    """The frozen base model. Machine scope: a workspace cannot choose it."""

    id: Annotated[
        str,
        Meta(
            description="A Hugging Face causal LM, or one that ships inside: c2l-small, c2l-nano, or auto: small on a "
            "GPU or on 2 quick CPU cores (AVX2, bf16; else 4), else nano."
        ),
    ] = "auto"
    path: Annotated[str, Meta(description="Folder of a model on this machine; wins over id.")] = ""
    revision: Annotated[str, Meta(description="Revision of a Hub model.")] = ""
    device: Annotated[
        str, Meta(description="auto, cpu, cuda, cuda:N or mps.", pattern=r"^(auto|cpu|mps|cuda(:\d+)?)$")
    ] = "auto"
    dtype: Annotated[
        Literal["auto", "float32", "bfloat16", "float16"], Meta(description="Number format of the weights.")
    ] = "auto"
    offline: Annotated[bool, Meta(description="Never ask the Hub; use what is on this machine.")] = False
    idle_unload_minutes: Annotated[
        int, _i(0, 100000, "End the engine after this many idle minutes and give its memory back; 0 never.")
    ] = 30


class Server(_Group, frozen=True, kw_only=True):
    """How an editor starts the server. Machine scope; read by the editor plugins, not by the server."""

    path: Annotated[str, Meta(description="The c2l-lsp executable; empty: found through the interpreter.")] = ""
    args: Annotated[list[str], Meta(description="More arguments for the server.")] = field(default_factory=list)
    interpreter: Annotated[str, Meta(description="Python that has c2l_lsp installed; empty: found.")] = ""


class Remote(_Group, frozen=True, kw_only=True):
    """A team's server instead of the local model: named here, not built yet. Machine scope."""

    url: Annotated[str, Meta(description="https:// address of a team server (planned, no effect yet).")] = ""
    token_file: Annotated[str, Meta(description="File that holds its access token (planned, no effect yet).")] = ""
    timeout_ms: Annotated[int, _i(50, 600000, "Longest wait for it, in ms (planned, no effect yet).")] = 2000


class Statistics(_Group, frozen=True, kw_only=True):
    """Local counts of shown and accepted completions."""

    enable: Annotated[bool, Meta(description="Count shown and accepted completions on this machine only.")] = True


class StatusBar(_Group, frozen=True, kw_only=True):
    """The editor's status item."""

    show: Annotated[bool, Meta(description="Show the status item.")] = True


class Trace(_Group, frozen=True, kw_only=True):
    """Protocol tracing by the editor's client."""

    server: Annotated[
        Literal["off", "messages", "verbose"], Meta(description="Trace of the messages between editor and server.")
    ] = "off"


class Settings(_Group, frozen=True, kw_only=True):
    """All of `c2l.*`."""

    enable: Annotated[dict[str, bool], Meta(description="On or off by language id; * is every other language.")] = (
        field(default_factory=lambda: {"*": True, "plaintext": False})
    )
    completion: Completion = Completion()
    context: Context = Context()
    adapter: Adapter = Adapter()
    files: Files = Files()
    model: Model = Model()
    server: Server = Server()
    remote: Remote = Remote()
    statistics: Statistics = Statistics()
    show_notifications: Annotated[
        Literal["off", "onError", "onWarning", "always"], Meta(description="Which messages pop up.")
    ] = "onError"
    status_bar: StatusBar = StatusBar()
    trace: Trace = Trace()

    def enabled_for(self, language: str) -> bool:
        """Whether completions are on for an LSP language id."""
        return self.enable.get(language, self.enable.get("*", True))


MACHINE_ONLY = frozenset({"model", "server", "remote"})
"""Groups a workspace must not set: they name paths, addresses, commands and devices."""


def merge(
    base: Settings, values: Mapping[str, Any], *, source: str, machine: bool, file: str = ""
) -> tuple[Settings, list[SettingError]]:
    """`base` overlaid with `values`, and an error for each key that was wrong and therefore skipped.

    `values` is nested or dotted ("completion.debounceMs"), with or without the leading "c2l". None means unset.
    `machine`: the source is the user; others set no machine groups and only tighten what is read. `file`: the source,
    if it is one to correct by hand. Never raises for a user's mistake.
    """
    plain = msgspec.to_builtins(base)
    errors: list[SettingError] = []
    for path, value in _leaves(values):
        if value == [] and isinstance(_at(plain, path), dict):
            continue  # an empty table of Lua, which cannot tell a list from a map
        dotted = ".".join(path)
        if not machine and path[0] in MACHINE_ONLY:
            errors.append(SettingError(f"c2l.{dotted} is set in {source}: only user settings may set it.", file))
            continue
        trial = _with(plain, path, value)
        try:
            msgspec.convert(trial, Settings, strict=True)
        except msgspec.ValidationError as error:
            reason = str(error).split(" - at ")[0]
            wrong = "is not a setting" if "unknown field" in reason else f"is left as it was: {reason}"
            errors.append(SettingError(f"c2l.{dotted} in {source} {wrong}.", file))
            continue
        if not machine and dotted in TIGHTENED:
            held = TIGHTENED[dotted](_at(plain, path), value)
            if laxer(held, value, _at(msgspec.to_builtins(Settings()), path)):
                errors.append(SettingError(f"c2l.{dotted} in {source} {REFUSED}.", file))
            trial = _with(plain, path, held)
        plain = trial
    return msgspec.convert(plain, Settings, strict=True), errors


def _leaves(values: Mapping[str, Any], path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    for key, value in values.items():
        if value is None:
            continue
        here = (*path, *str(key).split("."))
        here = here[1:] if here[0] == "c2l" else here
        if isinstance(value, Mapping) and (value or not here) and here[:1] != ("enable",):
            yield from _leaves(value, here)
        else:
            yield here or ("c2l",), value


def _at(plain: Any, path: Iterable[str]) -> Any:  # noqa: ANN401 - plain values
    for part in path:
        plain = plain.get(part) if isinstance(plain, dict) else None
    return plain


def _with(plain: dict[str, Any], path: Iterable[str], value: object) -> dict[str, Any]:
    head, *rest = path
    inner = plain.get(head)
    if rest:
        value = _with(inner if isinstance(inner, dict) else {}, rest, value)
    elif isinstance(inner, dict) and isinstance(value, Mapping):
        value = {**inner, **value}
    return {**plain, head: value}


def user_file() -> Path:
    """The user's configuration file; C2L_CONFIG names another."""
    named = os.environ.get("C2L_CONFIG")
    return Path(named) if named else user_config_path("c2l") / "config.toml"


def state_root() -> Path:
    """Folder that holds the state of every workspace folder; C2L_STATE_DIR names another."""
    named = os.environ.get("C2L_STATE_DIR")
    return Path(named) if named else user_state_path("c2l_lsp")


def load_user(path: Path | None = None) -> tuple[Settings, list[SettingError]]:
    """Defaults overlaid with the user's file, if there is one."""
    path = path or user_file()
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return Settings(), []
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        return Settings(), [SettingError(f"{path} cannot be read ({error}); defaults are used.", str(path))]
    return merge(Settings(), values, source=str(path), machine=True, file=str(path))
