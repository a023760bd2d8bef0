"""The editor contract: every name and payload that is ours and crosses between an editor and this server.

Both editor plugins state the same names on their side and a test keeps the three equal. Payload keys are camelCase on
the wire. Knows nothing of pygls, documents or the engine; standard LSP messages are not repeated here.
"""

from __future__ import annotations

from enum import Enum
from typing import Any, TypeVar

import msgspec
from msgspec import UNSET, Struct, UnsetType

from c2l_lsp.errors import RequestError

SECTION = "c2l"
"""Section of `workspace/configuration`, and prefix of every setting and command."""


class Command(str, Enum):
    """Commands of `workspace/executeCommand`. The first group is answered by the server, CLIENT_COMMANDS never are."""

    DID_ACCEPT = "c2l.didAcceptCompletion"
    TOGGLE = "c2l.toggle"
    TOGGLE_LANGUAGE = "c2l.toggleLanguage"
    SNOOZE = "c2l.snooze"
    SHOW_STATUS = "c2l.showStatus"
    SHOW_STATISTICS = "c2l.showStatistics"
    SHOW_REPORT = "c2l.showReport"
    REGENERATE_ADAPTER = "c2l.regenerateAdapter"
    RESET_ADAPTER = "c2l.resetAdapter"
    EXPORT_ADAPTER = "c2l.exportAdapter"
    DEEPEN_ADAPTER = "c2l.deepenAdapter"
    TOGGLE_ADAPTER = "c2l.toggleAdapter"
    UNLOAD_MODEL = "c2l.unloadModel"
    RESTART_SERVER = "c2l.restartServer"


CLIENT_COMMANDS = ("c2l.triggerCompletion", "c2l.showMenu", "c2l.selectModel", "c2l.showLogs")
"""Commands of the contract that only an editor can carry out."""


class Method(str, Enum):
    """Requests of an editor beyond the standard."""

    STATUS = "c2l/status"
    STATISTICS = "c2l/statistics"
    EXPLAIN = "c2l/explain"
    ADAPTER_INFO = "c2l/adapter/info"
    ADAPTER_REGENERATE = "c2l/adapter/regenerate"
    ADAPTER_RESET = "c2l/adapter/reset"
    ADAPTER_EXPORT = "c2l/adapter/export"
    ADAPTER_DEEPEN = "c2l/adapter/deepen"
    ADAPTER_SET_ENABLED = "c2l/adapter/setEnabled"
    MODEL_LOAD = "c2l/model/load"
    MODEL_UNLOAD = "c2l/model/unload"


DID_CHANGE_STATUS = "c2l/didChangeStatus"
ADAPTER_DID_CHANGE = "c2l/adapter/didChange"
PROBLEM = "c2l/problem"
"""Server → editor notification, in place of `window/showMessage` for editors that start us with `showsProblems`."""
DID_CHANGE_TRUST = "c2l/didChangeTrust"
"""Editor → server notification {trusted}: the user granted or withdrew trust in the workspace."""


class State(str, Enum):
    """What the whole is doing, in one word."""

    STARTING = "starting"
    LOADING = "loading"
    INDEXING = "indexing"
    READY = "ready"
    UPDATING = "updating"
    DEGRADED = "degraded"
    FAILED = "failed"
    DISABLED = "disabled"
    UNLOADED = "unloaded"


KIND = {
    State.DEGRADED: "Warning", State.FAILED: "Error", State.DISABLED: "Inactive", State.UNLOADED: "Inactive",
}  # fmt: skip
"""Kind of a state for the editor's status item; every other state is Normal."""

BUSY = frozenset({State.STARTING, State.LOADING, State.INDEXING, State.UPDATING})


class Reason(str, Enum):
    """Why no completion is given. The closed set behind `disabledReason`."""

    OFF = "off"
    SNOOZED = "snoozed"
    LANGUAGE = "language"
    BUFFER = "buffer"
    MANUAL = "manual"
    COMMENT = "comment"
    LINE_SUFFIX = "line-suffix"
    MIN_CHARS = "min-chars"
    NO_DOCUMENT = "no-document"
    STARTING = "starting"
    FAILED = "failed"
    TIMEOUT = "timeout"
    ENGINE = "engine"
    LEFT_OUT = "left-out"
    UNSURE = "unsure"
    EMPTY = "empty"


SENTENCES = {
    Reason.OFF: "Completions are off in this workspace. c2l.toggle turns them on.",
    Reason.SNOOZED: "Completions are snoozed.",
    Reason.LANGUAGE: "Completions are off for this language (c2l.enable, c2l.toggleLanguage).",
    Reason.BUFFER: "Completions are off in this file (c2l.toggle).",
    Reason.MANUAL: "Completions are shown only on request (c2l.completion.trigger is manual).",
    Reason.COMMENT: "Completions are off inside comments (c2l.completion.inComments).",
    Reason.LINE_SUFFIX: "Too much text follows the cursor on its line (c2l.completion.maxLineSuffix).",
    Reason.MIN_CHARS: "Too little text stands before the cursor on its line (c2l.completion.minChars).",
    Reason.NO_DOCUMENT: "The editor has not opened this document.",
    Reason.STARTING: "The model is still loading.",
    Reason.FAILED: "The engine is not running. c2l.restartServer starts it again.",
    Reason.TIMEOUT: "The engine did not answer in time.",
    Reason.ENGINE: "The engine refused the request.",
    Reason.LEFT_OUT: "This file is left out: it is ignored (.gitignore, .c2lignore, c2l.files) or named like a secret.",
    Reason.UNSURE: "The model is not sure enough of anything here (c2l.completion.minConfidence). Asked, it guesses.",
    Reason.EMPTY: "The model had nothing to suggest here.",
}


class _Payload(Struct, rename="camel", kw_only=True):
    """Base of payloads in both directions; unknown keys of an editor are ignored, as LSP asks."""


class Latency(_Payload):
    """Time of recent completions as the editor saw them, in ms."""

    p50: float = 0.0
    p95: float = 0.0


class Problem(_Payload):
    """`c2l/problem`. `code` is the error's; `setting` the key to correct, in `file` or in the editor's settings."""

    severity: str
    code: str
    message: str
    setting: str = ""
    file: str = ""


class AdapterStatus(_Payload):
    """One folder's adapter. `updatedAt` is seconds since the epoch, 0 before the first; `scale` 0: it has no effect.

    `deep` says how far training on request is, or what became of it; empty if nobody asked for it.
    """

    folder: str
    generation: int = 0
    pending_files: int = 0
    updated_at: float = 0.0
    enabled: bool = True
    kind: str = ""
    state: str = ""
    files: int = 0
    scale: float = 1.0
    message: str = ""
    deep: str = ""


class Status(_Payload):
    """`c2l/didChangeStatus`, and the answer to `c2l/status` (there with `folders`, and a reason for one document).

    `device` is empty until the model is loaded. Only in the answer: `memoryMb`, what the engine's process holds, and
    `lastReason`, why the last request of the document got nothing, if it got nothing.
    """

    kind: str
    busy: bool
    message: str
    state: State
    model: str | None = None
    device: str = ""
    adapter: AdapterStatus | None = None
    latency_ms: Latency = msgspec.field(name="latencyMs", default_factory=Latency)
    disabled_reason: str | UnsetType = UNSET
    last_reason: str | UnsetType = UNSET
    folders: list[AdapterStatus] | UnsetType = UNSET
    memory_mb: float | UnsetType = UNSET


class AdapterChange(_Payload):
    """`c2l/adapter/didChange`. `paths`: the largest changed files; `moved`: relative distance from the one before."""

    folder: str
    generation: int
    trigger: str
    changed_files: int
    ms: dict[str, float]
    adapter: AdapterStatus
    paths: list[str] = []
    moved: float = 0.0


class DocumentId(_Payload):
    """LSP's TextDocumentIdentifier."""

    uri: str


class FolderParams(_Payload):
    """Which folder a request is about: a folder's URI or path, else the one of the document, else the first."""

    folder: str | None = None
    text_document: DocumentId | None = None


class SetEnabledParams(FolderParams):
    """`enabled` None flips."""

    enabled: bool | None = None


class ExportParams(FolderParams):
    """`out`: directory to write; `rank` 0 is the smallest exact one."""

    out: str = ""
    rank: int = 0


class DeepenParams(FolderParams):
    """`cancel`: stop the training that runs; `steps` 0 chooses their number."""

    cancel: bool = False
    steps: int = 0


class ExplainParams(_Payload):
    """Id of a completion, as in the arguments of its command."""

    id: str


class AcceptParams(ExplainParams):
    """`chars`: how many characters (code points) were inserted, 0: all that was left; `partly`: some are left still."""

    chars: int = 0
    partly: bool = False


class StatisticsParams(_Payload):
    """`reset` starts counting anew after the answer."""

    reset: bool = False


class ToggleParams(_Payload):
    """`uri`: one document; `language`: one language; neither: everything. `enabled` None flips."""

    uri: str | None = None
    language: str | None = None
    enabled: bool | None = None


class Switched(_Payload):
    """`initializationOptions.switches`: what the user turned on or off while a former server ran.

    `off`: everything; `documents`: by URI; `snoozedUntil`: seconds since the epoch; `adaptersOff`: folders, by path.
    """

    off: bool = False
    documents: dict[str, bool] = {}
    languages: dict[str, bool] = {}
    snoozed_until: float = 0.0
    adapters_off: list[str] = []


class TrustParams(_Payload):
    """Whether the user trusts the workspace's contents."""

    trusted: bool


_T = TypeVar("_T", bound=Struct)


def parse(plain: object, kind: type[_T]) -> _T:
    """Typed parameters of an editor's request. RequestError naming the key that is wrong."""
    try:
        # Lua has one kind of table: without entries it arrives as a list.
        return msgspec.convert({} if plain is None or plain == [] else plain, kind, strict=True)
    except msgspec.ValidationError as error:
        raise RequestError(f"The request's parameters are wrong: {error}.") from error


def plain(payload: Struct) -> dict[str, Any]:
    """A payload as JSON-ready values."""
    values: dict[str, Any] = msgspec.to_builtins(payload)
    return values
