"""All settings: type, default, range, description and scope.

Settings are frozen msgspec structs with camelCase keys. The same definitions validate the user's file and the editor's
answer to `workspace/configuration`, and generate package.json, the Neovim settings and the table in the documentation.
Precedence, lowest first: defaults, user file, workspace settings. An invalid key or value is reported by name and
skipped; the other settings still apply.
"""

from __future__ import annotations

import difflib
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import msgspec
from msgspec import Meta, Struct, field
from platformdirs import user_config_path, user_state_path

from c2l_lsp.errors import SettingError
from c2l_lsp.languages import LANGUAGE_SUFFIXES

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


def _int(low: int, high: int, description: str) -> Meta:
    return Meta(ge=low, le=high, description=description)


class _Group(Struct, frozen=True, kw_only=True, rename="camel", forbid_unknown_fields=True):
    """Base of a named group of settings."""


class Completion(_Group, frozen=True, kw_only=True):
    """When completions are requested, how long they may take and how long they may be."""

    trigger: Annotated[
        Literal["automatic", "manual"],
        Meta(description="Show completions while you type (automatic) or only on the trigger command (manual)."),
    ] = "automatic"
    debounce_ms: Annotated[int, _int(0, 5000, "Pause after a keystroke before a completion is computed, in ms.")] = 75
    max_latency_ms: Annotated[
        int,
        _int(
            20,
            60000,
            "Time limit of an automatic completion, in ms. At least a quarter of it is left for generating, even if "
            "reading the prompt took longer.",
        ),
    ] = 300
    max_latency_invoked_ms: Annotated[
        int, _int(20, 120000, "Time limit of an explicitly requested completion, in ms.")
    ] = 2000
    max_new_tokens: Annotated[int, _int(1, 1024, "Maximum length of a completion, in tokens.")] = 64
    multiline: Annotated[
        Literal["auto", "always", "never"],
        Meta(
            description="Whether completions may span several lines. auto: only if nothing but closing brackets and "
            "quotes follows the cursor on its line."
        ),
    ] = "auto"
    candidates: Annotated[int, _int(1, 8, "Number of alternatives that an explicit request returns.")] = 3
    max_line_suffix: Annotated[
        int,
        _int(
            0,
            1000,
            "No automatic completion if more than this many characters follow the cursor on its line. Closing "
            "brackets, quotes and spaces do not count.",
        ),
    ] = 8
    min_chars: Annotated[
        int, _int(0, 100, "No automatic completion if fewer than this many characters precede the cursor on its line.")
    ] = 0
    speculative: Annotated[
        bool, Meta(description="While a completion is shown, compute the one that would follow it.")
    ] = True
    read_ahead: Annotated[
        bool,
        Meta(
            description="Read the text around the cursor while it rests, so that the first completion there is quick. "
            "The editor must send c2l/didMoveCursor, as the plugins for VS Code and Neovim do."
        ),
    ] = True
    cache_size: Annotated[
        int, _int(0, 100000, "Number of completions kept in memory, so that going back to a place is instant.")
    ] = 250
    in_comments: Annotated[bool, Meta(description="Show automatic completions inside line comments.")] = True
    min_confidence: Annotated[
        float,
        Meta(
            ge=-1.0,
            le=1.0,
            description="Minimum estimated probability that an automatically shown line is right. A less probable line "
            "is shortened to its confident beginning, or not shown. 0: show everything, requested or not. "
            "-1: the value that was chosen for the model.",
        ),
    ] = -1.0


class FollowUp(_Group, frozen=True, kw_only=True):
    """Follow-up edits: places that need the edit that was just made elsewhere."""

    enable: Annotated[
        bool,
        Meta(
            description="After a definition or a parameter was renamed, offer the other places that need it. Looks for "
            "them in the files that may be read."
        ),
    ] = True


class Context(_Group, frozen=True, kw_only=True):
    """The prompt: text of the current file around the cursor. Other files never enter it."""

    max_tokens: Annotated[
        int, _int(16, 131072, "Maximum length of the prompt (text before and after the cursor), in tokens.")
    ] = 1536


class Adapter(_Group, frozen=True, kw_only=True):
    """The repository's adapter: which hypernetwork generates it and how it follows edits."""

    enable: Annotated[bool, Meta(description="Adapt the model to the repository.")] = True
    hypernetwork: Annotated[
        Literal["auto", "memory", "evo", "static", "none"],
        Meta(
            description="Hypernetwork that generates the adapter: memory (for any model), static or evo (Code2LoRA, "
            "for models with trained weights), or none for no adapter. auto: the one that measured best for the model."
        ),
    ] = "auto"
    update_delay_ms: Annotated[
        int, _int(0, 600000, "Pause after a file change before the adapter is updated, in ms.")
    ] = 500
    max_delay_ms: Annotated[int, _int(0, 3600000, "Maximum delay of an update while files keep changing, in ms.")] = (
        5000
    )
    include_unsaved: Annotated[bool, Meta(description="Adapt to unsaved text of open files as well.")] = True
    use_git_history: Annotated[
        bool,
        Meta(description="When a folder is opened for the first time, replay its git history (only evo does)."),
    ] = True
    history_commits: Annotated[
        int, _int(0, 10000, "Number of commits on the main branch to replay (only evo does). 0: none.")
    ] = 64
    scale: Annotated[
        float, Meta(ge=0.0, le=4.0, description="Strength of the adapter. 0 is the base model without adapter.")
    ] = 1.0
    max_index_kb: Annotated[
        int,
        _int(
            16,
            1048576,
            "Maximum amount of a folder's text that the model reads for neural keys, in kB, most useful files first; "
            "more than 65536 counts as 65536. 1 MB of text takes about 20 MB of memory and of disk space. The token "
            "index holds every file in any case.",
        ),
    ] = 8192


class Files(_Group, frozen=True, kw_only=True):
    """Which files may be read. The same filter applies to indexing, prompts, training and logs."""

    exclude: Annotated[list[str], Meta(description="Additional patterns to exclude, in .gitignore syntax.")] = field(
        default_factory=list
    )
    respect_gitignore: Annotated[bool, Meta(description="Exclude files that git ignores.")] = True
    ignore_file: Annotated[str, Meta(description="Name of the project's own ignore file, in .gitignore syntax.")] = (
        ".c2lignore"
    )
    max_size_kb: Annotated[int, _int(1, 65536, "Maximum size of a file, in kB. Larger files are excluded.")] = 512
    languages: Annotated[
        list[str],
        Meta(description="Languages to adapt to, as LSP language ids. Files of other languages are not indexed."),
    ] = field(default_factory=lambda: ["python"])


class Model(_Group, frozen=True, kw_only=True):
    """The frozen base model. Machine scope: a workspace cannot choose it."""

    id: Annotated[
        str,
        Meta(
            description="Base model: a shipped one (c2l-nano or c2l-small), or the name of a causal language model on "
            "Hugging Face. auto: c2l-small on a GPU, on 2 or more CPU cores with native bf16 or with AVX2 and the "
            "compiled kernel, and on 4 or more other cores; otherwise c2l-nano."
        ),
    ] = "auto"
    path: Annotated[
        str,
        Meta(
            description="A model on this machine: a folder in Hugging Face format, a GGUF file, or the name of a model "
            "of Ollama (ollama:qwen2.5-coder:0.5b) or LM Studio (lmstudio:publisher/name). Takes precedence over "
            "c2l.model.id."
        ),
    ] = ""
    revision: Annotated[str, Meta(description="Revision of a Hugging Face model.")] = ""
    device: Annotated[
        str,
        Meta(
            description="Device to run the model on: auto, cpu, cuda, cuda:N or mps.",
            pattern=r"^(auto|cpu|mps|cuda(:\d+)?)$",
        ),
    ] = "auto"
    dtype: Annotated[
        Literal["auto", "float32", "bfloat16", "float16"], Meta(description="Data type of the weights.")
    ] = "auto"
    offline: Annotated[
        bool, Meta(description="Never download from Hugging Face; use only models that are on this machine.")
    ] = False
    idle_unload_minutes: Annotated[
        int,
        _int(0, 100000, "Stop the engine and free its memory after this many minutes without a completion. 0: never."),
    ] = 30


class Server(_Group, frozen=True, kw_only=True):
    """How an editor starts the server. Machine scope; the editor plugins read these, the server does not."""

    path: Annotated[
        str, Meta(description="Path of the c2l-lsp executable. Empty: found through the Python interpreter.")
    ] = ""
    args: Annotated[list[str], Meta(description="Additional command-line arguments of the server.")] = field(
        default_factory=list
    )
    interpreter: Annotated[
        str, Meta(description="Python interpreter with c2l_lsp installed. Empty: found automatically.")
    ] = ""


class Remote(_Group, frozen=True, kw_only=True):
    """A team server in place of the local model. Machine scope. Not implemented yet: the values are ignored."""

    url: Annotated[str, Meta(description="Address (https://) of a team server. Not implemented yet; ignored.")] = ""
    token_file: Annotated[
        str, Meta(description="File with the team server's access token. Not implemented yet; ignored.")
    ] = ""
    timeout_ms: Annotated[
        int, _int(50, 600000, "Time limit of a request to the team server, in ms. Not implemented yet; ignored.")
    ] = 2000


class Statistics(_Group, frozen=True, kw_only=True):
    """Local counts of shown and accepted completions."""

    enable: Annotated[
        bool, Meta(description="Count shown and accepted completions. The counts stay on this machine.")
    ] = True


class StatusBar(_Group, frozen=True, kw_only=True):
    """The editor's status item."""

    show: Annotated[bool, Meta(description="Show the status item.")] = True


class Trace(_Group, frozen=True, kw_only=True):
    """Protocol tracing by the editor's client. Machine scope: a trace holds the texts of all open documents."""

    server: Annotated[
        Literal["off", "messages", "verbose"],
        Meta(description="Trace the messages between editor and server in the log."),
    ] = "off"


class Settings(_Group, frozen=True, kw_only=True):
    """All settings, `c2l.*`."""

    enable: Annotated[
        dict[str, bool],
        Meta(description="Turn completions on or off by LSP language id. * stands for all other languages."),
    ] = field(default_factory=lambda: {"*": True, "plaintext": False})
    completion: Completion = Completion()
    follow_up: FollowUp = FollowUp()
    context: Context = Context()
    adapter: Adapter = Adapter()
    files: Files = Files()
    model: Model = Model()
    server: Server = Server()
    remote: Remote = Remote()
    statistics: Statistics = Statistics()
    show_notifications: Annotated[
        Literal["off", "onError", "onWarning", "always"],
        Meta(description="Which messages pop up. All of them are in the log."),
    ] = "onError"
    status_bar: StatusBar = StatusBar()
    trace: Trace = Trace()

    def enabled_for(self, language: str) -> bool:
        """Whether completions are on for an LSP language id."""
        return self.enable.get(language, self.enable.get("*", True))


class WorkspaceRule(NamedTuple):
    """How a workspace's value of a setting counts.

    `combine` returns the effective value for the user's and the workspace's value. `note` tells users about a rule that
    lets a workspace make the setting stricter only.
    """

    combine: Callable[[Any, Any], Any]
    note: str = ""


FREE = WorkspaceRule(lambda _user, workspace: workspace)
"""A workspace may set it."""
USER_ONLY = WorkspaceRule(lambda user, _workspace: user)
"""A workspace must not set it. Holds for whole groups, whose values name paths, addresses, commands and devices."""
_ADD = WorkspaceRule(  # the last match decides, so the user's patterns come last
    lambda user, workspace: [*(one for one in workspace if one not in user), *user],
    "A workspace can only add patterns.",
)
_TURN_ON = WorkspaceRule(lambda user, workspace: user or workspace, "A workspace can only turn it on.")
_TURN_OFF = WorkspaceRule(lambda user, workspace: user and workspace, "A workspace can only turn it off.")
_LOWER = WorkspaceRule(min, "A workspace can only lower it.")
_REMOVE = WorkspaceRule(
    lambda user, workspace: [one for one in user if one in workspace], "A workspace can only remove languages."
)
_KEEP = WorkspaceRule(lambda user, _workspace: user, "A workspace cannot change it.")
_KEEP_NONE = WorkspaceRule(
    lambda user, workspace: user if user == "none" else workspace, "A workspace cannot replace none."
)

WORKSPACE_RULES: dict[str, WorkspaceRule] = {
    "enable": FREE,
    "completion.trigger": FREE,
    "completion.debounceMs": FREE,
    "completion.maxLatencyMs": FREE,
    "completion.maxLatencyInvokedMs": FREE,
    "completion.maxNewTokens": FREE,
    "completion.multiline": FREE,
    "completion.candidates": FREE,
    "completion.maxLineSuffix": FREE,
    "completion.minChars": FREE,
    "completion.speculative": FREE,
    "completion.readAhead": FREE,
    "completion.cacheSize": FREE,
    "completion.inComments": FREE,
    "completion.minConfidence": FREE,
    "followUp.enable": _TURN_OFF,
    "context.maxTokens": FREE,
    "adapter.enable": _TURN_OFF,
    "adapter.hypernetwork": _KEEP_NONE,
    "adapter.updateDelayMs": FREE,
    "adapter.maxDelayMs": FREE,
    "adapter.includeUnsaved": _TURN_OFF,
    "adapter.useGitHistory": _TURN_OFF,
    "adapter.historyCommits": _LOWER,
    "adapter.scale": FREE,
    "adapter.maxIndexKb": _LOWER,
    "files.exclude": _ADD,
    "files.respectGitignore": _TURN_ON,
    "files.ignoreFile": _KEEP,
    "files.maxSizeKb": _LOWER,
    "files.languages": _REMOVE,
    "model.id": USER_ONLY,
    "model.path": USER_ONLY,
    "model.revision": USER_ONLY,
    "model.device": USER_ONLY,
    "model.dtype": USER_ONLY,
    "model.offline": USER_ONLY,
    "model.idleUnloadMinutes": USER_ONLY,
    "server.path": USER_ONLY,
    "server.args": USER_ONLY,
    "server.interpreter": USER_ONLY,
    "remote.url": USER_ONLY,
    "remote.tokenFile": USER_ONLY,
    "remote.timeoutMs": USER_ONLY,
    "statistics.enable": _TURN_OFF,
    "showNotifications": FREE,
    "statusBar.show": FREE,
    "trace.server": USER_ONLY,  # a trace writes the texts of all open documents to a log
}
"""The rule of every setting. A workspace may choose how completions are shown.

Of what is read, stored or logged, it may only make less.
"""

MACHINE_ONLY = frozenset(key.partition(".")[0] for key, rule in WORKSPACE_RULES.items() if rule is USER_ONLY)
"""Groups that a workspace must not set."""

RESTRICTIONS = {key: rule for key, rule in WORKSPACE_RULES.items() if rule.note}
"""Settings that a workspace can make stricter, never laxer."""


def merge(
    base: Settings, values: Mapping[str, Any], *, source: str, machine: bool, file: str = ""
) -> tuple[Settings, list[SettingError]]:
    """`base` overlaid with `values`, and one error for each invalid key, which is skipped. Raises nothing.

    `values` is nested or dotted ("completion.debounceMs"), with or without the leading "c2l". None means unset.
    `machine`: the values come from the user. Other sources cannot set MACHINE_ONLY groups and can only restrict
    RESTRICTIONS. `source` names the origin in error messages; `file` is its path if it is a file.
    """
    plain = msgspec.to_builtins(base)
    errors: list[SettingError] = []
    for path, value in _leaves(values):
        if value == [] and isinstance(_at(plain, path), dict):
            continue  # Lua encodes an empty map as an empty list
        dotted = ".".join(path)
        if not machine and path[0] in MACHINE_ONLY:
            errors.append(SettingError(f"c2l.{dotted} in {source} is ignored: only user settings may set it.", file))
            continue
        trial = _with(plain, path, value)
        try:
            msgspec.convert(trial, Settings, strict=True)
        except msgspec.ValidationError as error:
            reason = str(error).split(" - at ")[0]
            problem = "is not a setting" if "unknown field" in reason else f"is ignored: {reason}"
            errors.append(SettingError(f"c2l.{dotted} in {source} {problem}.", file))
            continue
        if not machine and dotted in RESTRICTIONS:
            effective = RESTRICTIONS[dotted].combine(_at(plain, path), value)
            if _rejected(effective, value, _at(msgspec.to_builtins(Settings()), path)):
                note = RESTRICTIONS[dotted].note
                errors.append(
                    SettingError(f"c2l.{dotted} in {source} is ignored: only user settings may loosen it. {note}", file)
                )
            trial = _with(plain, path, effective)
        plain = trial
        if dotted == "files.languages":
            errors += [
                SettingError(f"c2l.{dotted} in {source}: {problem}", file) for problem in _unknown(_at(trial, path))
            ]
    return msgspec.convert(plain, Settings, strict=True), errors


def _unknown(languages: list[str]) -> Iterator[str]:
    """Yield one sentence for each language id that no file has."""
    for language in languages:
        if language not in LANGUAGE_SUFFIXES:
            close = difflib.get_close_matches(language.lower(), LANGUAGE_SUFFIXES, n=1)
            hint = f"did you mean {close[0]}?" if close else f"the known ones are {', '.join(LANGUAGE_SUFFIXES)}."
            yield f"{language!r} is not a known language, so no file of it is indexed; {hint}"


def _rejected(effective: object, requested: object, default: object) -> bool:
    """Whether a restriction overruled the workspace. Editors echo defaults, which request nothing."""
    if requested == default:
        return False
    if isinstance(requested, list) and isinstance(effective, list):
        return any(one not in effective for one in requested)
    return effective != requested


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
    """Path of the user's configuration file. The environment variable C2L_CONFIG overrides it."""
    override = os.environ.get("C2L_CONFIG")
    return Path(override) if override else user_config_path("c2l") / "config.toml"


def state_root() -> Path:
    """Directory of the state of all workspace folders. The environment variable C2L_STATE_DIR overrides it."""
    override = os.environ.get("C2L_STATE_DIR")
    return Path(override) if override else user_state_path("c2l_lsp")


def load_user(path: Path | None = None) -> tuple[Settings, list[SettingError]]:
    """Defaults overlaid with the user's file, and its errors. A missing file is no error. Raises nothing."""
    path = path or user_file()
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return Settings(), []
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        return Settings(), [SettingError(f"{path} cannot be read ({error}); the defaults are used.", str(path))]
    return merge(Settings(), values, source=str(path), machine=True, file=str(path))
