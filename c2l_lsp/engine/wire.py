"""Protocol between the server and the engine: methods, events, and the bytes of a frame. Imports no torch.

A frame is a 4-byte big-endian length and one msgpack map. There are three kinds: a Request (server to engine), the
Reply to it, and an Event (engine to server). Parameters and results are frozen structs, converted strictly on both
sides: an unknown key, a missing key or a wrong type raises WireError.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any, BinaryIO, TypeVar

import msgpack
import msgspec
from msgspec import Struct

from c2l_lsp.config import Settings
from c2l_lsp.errors import WireError

MAX_FRAME = 16 * 1024 * 1024
SCHEMA = 1
UNSURE = "No completion here reaches c2l.completion.minConfidence. Request one explicitly to see the best guess."
"""Reason of a completion without text: every candidate was less likely than the minimum."""
_LENGTH = struct.Struct(">I")


class _Record(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of all parameters, results, events and frames."""


# --- methods: parameters and results -------------------------------------------------------------------------------


class Hello(_Record, frozen=True, kw_only=True):
    """First request: the server's schema and the machine's settings. The engine loads the model."""

    schema: int
    settings: Settings
    trusted: bool = True


class ModelInfo(_Record, frozen=True, kw_only=True):
    """The base model in use."""

    id: str
    parameters: int
    device: str
    dtype: str
    fim: bool
    max_context: int
    digest: str
    load_ms: float


class Folder(_Record, frozen=True, kw_only=True):
    """A workspace folder, by absolute path."""

    folder: str


class OpenFolder(_Record, frozen=True, kw_only=True):
    """Watch and index a folder under these settings. Sent again when the settings change."""

    folder: str
    settings: Settings
    trusted: bool = True


class Buffer(_Record, frozen=True, kw_only=True):
    """Text of an open document, by path relative to the folder, with /. `text` None: the document was closed."""

    folder: str
    path: str
    text: str | None


class Complete(_Record, frozen=True, kw_only=True):
    """Request one completion.

    `folder`: absolute path, or "" for none (base model alone). `adapter` False: base model alone as well.
    `prefix`, `suffix`: the document's text before and after the cursor, clipped by the server.
    `invoked`: the user requested it explicitly. `must_start`: text that the completion has to begin with, the rest of
    a selected popup entry. `min_confidence`: of a line, see `engine.completion.confidence`; 0 answers with every
    text, -1 stands for the model's own thresholds. `read_only`: read the prompt into the KV cache and suggest nothing.
    """

    folder: str
    path: str
    language: str
    prefix: str
    suffix: str
    invoked: bool = False
    adapter: bool = True
    candidates: int = 1
    must_start: str = ""
    max_new_tokens: int = 64
    max_latency_ms: int = 300
    multiline: str = "auto"
    max_context_tokens: int = 1536
    min_confidence: float = 0.0
    read_only: bool = False


class Timing(_Record, frozen=True, kw_only=True):
    """Milliseconds of a completion."""

    prefill: float = 0.0
    decode: float = 0.0
    total: float = 0.0


LEFT_OUT = "This file is excluded: it is ignored (.gitignore, .c2lignore, c2l.files.exclude) or named like a secret."
"""Reason of a completion without text: this file must not be read."""


class Completion(_Record, frozen=True, kw_only=True):
    """Candidate texts, best first, or none.

    `generation`: the adapter generation, 0 for the base model alone. `stop`: why decoding of the first candidate ended
    (eos, scope, blank, lines, tokens, latency, repeat, suffix, unsure). `reason`: why there is no text, else "".
    `mean_logprob`: nat per token of the first candidate. `replaced`: for each text the number of characters after the
    cursor that it repeats and replaces; [] if no text does.
    """

    texts: list[str]
    generation: int
    prompt_tokens: int
    new_tokens: int
    ms: Timing
    stop: str = ""
    reason: str = ""
    reused_tokens: int = 0
    mean_logprob: float = 0.0
    replaced: list[int] = msgspec.field(default_factory=list)


class Score(_Record, frozen=True, kw_only=True):
    """Request the log-probability of `text` at a cursor. The prompt is that of Complete."""

    folder: str
    prefix: str
    suffix: str
    text: str
    adapter: bool = True
    max_context_tokens: int = 1536


class Scored(_Record, frozen=True, kw_only=True):
    """Summed log-probability (nat) of a text's tokens, their number, and the adapter generation."""

    logprob: float
    tokens: int
    generation: int


class Cancel(_Record, frozen=True, kw_only=True):
    """Cancel the request with this id. It is answered with the error `cancelled`."""

    id: int


class AdapterInfo(_Record, frozen=True, kw_only=True):
    """The state of a folder and its adapter.

    `files`: files that the adapter contains, in its token index or its state. `chunks`, `learned_bytes`: of the files
    whose chunks are embedded; `sampled`: these are a sample of the folder. `pending_files`: changed and not indexed
    yet. `norm`: Frobenius norm of everything the adapter adds to the weights. `scale`: the larger of the strengths that
    validation chose for the matrices and for the kNN memory, times the user's setting. `recalled`: positions in the
    kNN memory, `keyed`: those that have a neural key. `complete`: no more files wait for theirs. `rank`: of the
    adapter. `updated_at`: Unix time in seconds.
    `deep`: state of the finetuning on request, "" if there was none.
    """

    folder: str
    generation: int
    kind: str
    enabled: bool
    files: int
    chunks: int
    pending_files: int
    norm: float
    scale: float
    updated_at: float
    state: str
    message: str = ""
    rank: int = 0
    learned_bytes: int = 0
    sampled: bool = False
    deep: str = ""
    recalled: int = 0
    keyed: int = 0
    complete: bool = True


TOKENS = "tokens"
"""Task of Progress and trigger of AdapterChanged for the token index alone."""

DEEP = "deep"
"""Task of Progress and trigger of AdapterChanged for finetuning on request."""


class Deepen(_Record, frozen=True, kw_only=True):
    """Finetune LoRA pairs of a folder in the background, or `cancel` it. `steps` 0: the engine chooses."""

    folder: str
    steps: int = 0
    cancel: bool = False


class Export(_Record, frozen=True, kw_only=True):
    """Write a folder's adapter to the directory `out` in PEFT format. `rank` 0: the smallest exact rank."""

    folder: str
    out: str
    rank: int = 0


class Exported(_Record, frozen=True, kw_only=True):
    """The directory, and the relative Frobenius error of the written ΔW against the engine's own."""

    out: str
    rank: int
    error: float
    generation: int


class SetEnabled(_Record, frozen=True, kw_only=True):
    """Turn a folder's adapter on or off."""

    folder: str
    enabled: bool


class Status(_Record, frozen=True, kw_only=True):
    """The engine: its model, its folders, latencies of recent completions (ms) and resident memory."""

    model: ModelInfo
    folders: list[AdapterInfo]
    queued: int
    p50_ms: float
    p95_ms: float
    memory_mb: float


class Nothing(_Record, frozen=True, kw_only=True):
    """No parameters or no result."""


METHODS: dict[str, tuple[type[Struct], type[Struct]]] = {
    "hello": (Hello, ModelInfo),
    "open_folder": (OpenFolder, Nothing),
    "close_folder": (Folder, Nothing),
    "buffer": (Buffer, Nothing),
    "complete": (Complete, Completion),
    "score": (Score, Scored),
    "cancel": (Cancel, Nothing),
    "adapter_info": (Folder, AdapterInfo),
    "regenerate": (Folder, Nothing),
    "reset": (Folder, Nothing),
    "deepen": (Deepen, AdapterInfo),
    "export": (Export, Exported),
    "set_enabled": (SetEnabled, AdapterInfo),
    "status": (Nothing, Status),
    "ping": (Nothing, Nothing),
    "shutdown": (Nothing, Nothing),
}


# --- events ----------------------------------------------------------------------------------------------------------


class Progress(_Record, frozen=True, kw_only=True):
    """A long task: `done` of `total` units (`total` 0: unknown). The last event of a task has `finished`."""

    folder: str
    task: str
    done: int
    total: int
    unit: str
    finished: bool = False


class AdapterChanged(_Record, frozen=True, kw_only=True):
    """A new adapter generation is live.

    `trigger`: tokens, index, diff, settings, reset, restore, deep or gate (validation chose another strength). `ms`:
    duration of each stage. `paths`: the largest changed files. `moved`: relative distance from the previous adapter,
    or 0.
    """

    info: AdapterInfo
    trigger: str
    changed_files: int
    ms: dict[str, float]
    paths: list[str] = []
    moved: float = 0.0


class Trouble(_Record, frozen=True, kw_only=True):
    """A warning or notice for the user: error code, severity and sentence. `folder` "": about the engine."""

    folder: str
    code: str
    severity: str
    message: str


EVENTS: dict[str, type[Struct]] = {"progress": Progress, "adapter_changed": AdapterChanged, "trouble": Trouble}


# --- frames ----------------------------------------------------------------------------------------------------------


class Request(_Record, frozen=True, kw_only=True, tag_field="t", tag="q"):
    """A method call by the server."""

    id: int
    method: str
    params: dict[str, Any]


class Reply(_Record, frozen=True, kw_only=True, tag_field="t", tag="r"):
    """The answer to Request `id`: a result, or an error as (code of `c2l_lsp.errors`, sentence)."""

    id: int
    result: dict[str, Any] | None = None
    error: tuple[str, str] | None = None


class Event(_Record, frozen=True, kw_only=True, tag_field="t", tag="e"):
    """An event of the engine. `name` is a key of EVENTS."""

    name: str
    data: dict[str, Any]


Frame = Request | Reply | Event
_T = TypeVar("_T", bound=Struct)


def pack(frame: Frame) -> bytes:
    """Return the bytes of a frame, with its length. Raises WireError if it is larger than MAX_FRAME."""
    body: bytes = msgpack.packb(msgspec.to_builtins(frame), use_bin_type=True, unicode_errors="surrogatepass")
    if len(body) > MAX_FRAME:
        raise WireError(f"A frame of {len(body)} bytes exceeds the limit of {MAX_FRAME}.")
    return _LENGTH.pack(len(body)) + body


def unpack(body: bytes) -> Frame:
    """Return the frame of these bytes (without the length). Raises WireError if they are malformed."""
    try:
        plain = msgpack.unpackb(body, raw=False, strict_map_key=True, unicode_errors="surrogatepass")
        frame: Frame = msgspec.convert(plain, Frame, strict=True)
    except (ValueError, TypeError, RecursionError, msgpack.UnpackException, msgspec.ValidationError) as error:
        raise WireError(f"A frame is malformed: {error}.") from error
    return frame


def frame_length(header: bytes) -> int:
    """Return the length in a 4-byte header. Raises WireError if it is larger than MAX_FRAME."""
    length: int = _LENGTH.unpack(header)[0]
    if length > MAX_FRAME:
        raise WireError(f"A frame of {length} bytes was announced; the limit is {MAX_FRAME}.")
    return length


def read(stream: BinaryIO) -> Frame | None:
    """Return the next frame of a blocking stream, or None at its end. Raises WireError if it is cut or malformed."""
    header = _exactly(stream.read, 4)
    if header is None:
        return None
    body = _exactly(stream.read, frame_length(header))
    if body is None:
        raise WireError("The stream ended inside a frame.")
    return unpack(body)


def _exactly(take: Callable[[int], bytes], size: int) -> bytes | None:
    """Read `size` bytes; None at the end of the stream."""
    parts = bytearray()
    while len(parts) < size:
        chunk = take(size - len(parts))
        if not chunk:
            if parts:
                raise WireError("The stream ended inside a frame.")
            return None
        parts += chunk
    return bytes(parts)


def to_params(record: Struct) -> dict[str, Any]:
    """Return a record as a map of plain values, for a frame."""
    plain: dict[str, Any] = msgspec.to_builtins(record)
    return plain


def from_params(plain: dict[str, Any] | None, kind: type[_T]) -> _T:
    """Return the record of a map of plain values. Raises WireError with the key that is wrong."""
    try:
        return msgspec.convert(plain or {}, kind, strict=True)
    except msgspec.ValidationError as error:
        raise WireError(f"{kind.__name__}: {error}.") from error
