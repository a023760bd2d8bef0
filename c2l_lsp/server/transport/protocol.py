"""The editor contract: all names and payloads between editor and server that LSP does not define.

Both editor plugins declare the same names, and tests compare them. Payload keys are camelCase on the wire. This module
imports nothing of pygls or the engine.
"""

from __future__ import annotations

from enum import Enum
from typing import Any, TypeVar

import msgspec
from msgspec import UNSET, Struct, UnsetType

from c2l_lsp.errors import RequestError

SECTION = "c2l"
"""Section of `workspace/configuration`, and prefix of all settings and commands."""


FOLLOW_UP_KIND = "refactor.rewrite"
"""Kind of the code action that applies a follow-up edit."""


class Command(str, Enum):
    """Commands of `workspace/executeCommand` that the server executes."""

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
"""Commands of the contract that only an editor can execute."""


class Method(str, Enum):
    """Requests of an editor beyond LSP."""

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
"""Server → editor notification. It replaces `window/showMessage` for editors that initialize with `showsProblems`."""
DID_CHANGE_TRUST = "c2l/didChangeTrust"
"""Editor → server notification {trusted}: the user granted or revoked trust in the workspace."""

DID_MOVE_CURSOR = "c2l/didMoveCursor"
"""Editor → server notification {textDocument, position}: the cursor rests there, or a file was opened with it there."""


class State(str, Enum):
    """State of server and engine as a whole."""

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
"""Kind of the editor's status item for a state; Normal for the states not listed."""

BUSY = frozenset({State.STARTING, State.LOADING, State.INDEXING, State.UPDATING})


class Reason(str, Enum):
    """Why there is no completion: the values of `disabledReason` and `lastReason`."""

    OFF = "off"
    SNOOZED = "snoozed"
    LANGUAGE = "language"
    BUFFER = "buffer"
    MANUAL = "manual"
    COMMENT = "comment"
    LINE_SUFFIX = "line-suffix"
    MIN_CHARS = "min-chars"
    NO_DOCUMENT = "no-document"
    OUT_OF_STEP = "out-of-step"
    STARTING = "starting"
    FAILED = "failed"
    TIMEOUT = "timeout"
    ENGINE = "engine"
    LEFT_OUT = "left-out"
    UNSURE = "unsure"
    EMPTY = "empty"


SENTENCES = {
    Reason.OFF: "Completions are turned off. Run c2l.toggle to turn them on.",
    Reason.SNOOZED: "Completions are snoozed. c2l.triggerCompletion still shows one.",
    Reason.LANGUAGE: "Completions are turned off for this language. Run c2l.toggleLanguage or change c2l.enable.",
    Reason.BUFFER: "Completions are turned off in this file. Run c2l.toggle to turn them on.",
    Reason.MANUAL: "Automatic completions are turned off (c2l.completion.trigger). c2l.triggerCompletion shows one.",
    Reason.COMMENT: "Automatic completions are turned off in comments (c2l.completion.inComments).",
    Reason.LINE_SUFFIX: "Too much text follows the cursor on its line (c2l.completion.maxLineSuffix).",
    Reason.MIN_CHARS: "Too little text precedes the cursor on its line (c2l.completion.minChars).",
    Reason.NO_DOCUMENT: "The editor has not opened this file in the language server.",
    Reason.OUT_OF_STEP: "The editor sent a change of this file that the server could not read. "
    "Close the file and open it again.",
    Reason.STARTING: "The model is still loading. Completions start when it is ready.",
    Reason.FAILED: "The engine is not running. Run c2l.restartServer to start it again.",
    Reason.TIMEOUT: "The engine did not answer in time. Try again.",
    Reason.ENGINE: "The engine could not process the request. c2l.showLogs shows why.",
    Reason.LEFT_OUT: "This file is excluded by .gitignore, .c2lignore or c2l.files, or its name looks like a secret.",
    Reason.UNSURE: "The model's best guess is too uncertain to show (c2l.completion.minConfidence). "
    "c2l.triggerCompletion shows it.",
    Reason.EMPTY: "The model has no suggestion here.",
}


class _Payload(Struct, rename="camel", kw_only=True):
    """Base of payloads in both directions. Unknown keys from an editor are ignored, as LSP requires."""


class Latency(_Payload):
    """Percentiles of the latency of recent completions, in ms."""

    p50: float = 0.0
    p95: float = 0.0


class Problem(_Payload):
    """`c2l/problem`: an error for the user.

    `code` is the error's code. `setting` is the setting to correct, in `file` or, if that is empty, in the editor's
    settings; empty for other errors.
    """

    severity: str
    code: str
    message: str
    setting: str = ""
    file: str = ""


class AdapterStatus(_Payload):
    """One folder's adapter.

    `updatedAt` is in seconds since the epoch, 0 before the first generation. `scale` 0 means that the adapter has no
    effect. `deep` is the progress or the result of fine-tuning on request; empty without a request.
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
    """`c2l/didChangeStatus`, and the result of `c2l/status`.

    `device` is empty until the model is loaded. Only the result of `c2l/status` has `folders`, `memoryMb` (resident
    memory of the engine process) and `lastReason` (why the document's last request got no completion). There,
    `disabledReason` is about the document of the request.
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
    """`c2l/adapter/didChange`: a new adapter generation is live.

    `ms` is the time of each stage. `paths` are the largest changed files. `moved` is the relative distance from the
    previous adapter.
    """

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
    """The folder of a request: by URI or path, else the folder of the document, else the first folder."""

    folder: str | None = None
    text_document: DocumentId | None = None


class SetEnabledParams(FolderParams):
    """Parameters of `c2l/adapter/setEnabled`. `enabled` None toggles."""

    enabled: bool | None = None


class ExportParams(FolderParams):
    """Parameters of `c2l/adapter/export`. `out`: directory to write; `rank` 0: the smallest exact rank."""

    out: str = ""
    rank: int = 0


class DeepenParams(FolderParams):
    """Parameters of `c2l/adapter/deepen`. `cancel`: stop running training; `steps` 0: choose the number."""

    cancel: bool = False
    steps: int = 0


class ExplainParams(_Payload):
    """Parameters of `c2l/explain`. `id`: a completion's id, from the arguments of its command."""

    id: str


class AcceptParams(ExplainParams):
    """Parameters of `c2l.didAcceptCompletion`.

    `chars`: number of inserted characters (code points), 0 for the whole rest. `partly`: a part of the text is left.
    """

    chars: int = 0
    partly: bool = False


class StatisticsParams(_Payload):
    """Parameters of `c2l/statistics`. `reset`: set the counts to zero after this report."""

    reset: bool = False


class ToggleParams(_Payload):
    """Parameters of the toggle commands: one document, one language or everything. `enabled` None toggles."""

    uri: str | None = None
    language: str | None = None
    enabled: bool | None = None


class Switched(_Payload):
    """`initializationOptions.switches`: what the user had turned on or off in the previous server process.

    `off`: everything is off. `documents` is keyed by URI. `snoozedUntil` is in seconds since the epoch. `adaptersOff`
    holds folder paths.
    """

    off: bool = False
    documents: dict[str, bool] = {}
    languages: dict[str, bool] = {}
    snoozed_until: float = 0.0
    adapters_off: list[str] = []


class TrustParams(_Payload):
    """Parameters of `c2l/didChangeTrust`."""

    trusted: bool


class Position(_Payload):
    """LSP's Position, in the negotiated encoding."""

    line: int
    character: int


class CursorParams(_Payload):
    """Parameters of `c2l/didMoveCursor`."""

    text_document: DocumentId
    position: Position


_T = TypeVar("_T", bound=Struct)


def parse(plain: object, kind: type[_T]) -> _T:
    """Convert the parameters of an editor's request. RequestError names the invalid key."""
    try:
        # Lua encodes an empty map as an empty list.
        return msgspec.convert({} if plain is None or plain == [] else plain, kind, strict=True)
    except msgspec.ValidationError as error:
        raise RequestError(f"The parameters of the request are invalid: {error}.") from error


def plain(payload: Struct) -> dict[str, Any]:
    """A payload as plain JSON values."""
    values: dict[str, Any] = msgspec.to_builtins(payload)
    return values
