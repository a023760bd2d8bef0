"""Frames between the server and the engine: their bytes, their schema, their limits. Imports no torch.

A frame is a 4-byte big-endian length and one msgpack map. Three kinds: a Request (server → engine), a Reply to it, and
an Event (engine → server, unasked). Method parameters and results are frozen structs, converted strictly on both
sides: an unknown key, a missing key or a wrong type is a WireError and never reaches the code behind it.
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
UNSURE = "The model is not sure enough of anything here; asked for a suggestion, it gives its best guess."
_LENGTH = struct.Struct(">I")


class _Record(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of everything that crosses the wire."""


# --- methods: parameters and results -------------------------------------------------------------------------------


class Hello(_Record, frozen=True, kw_only=True):
    """First request: settings of the machine, and the schema the server speaks. The engine loads the model."""

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
    """A workspace folder by its absolute path."""

    folder: str


class OpenFolder(_Record, frozen=True, kw_only=True):
    """Start to watch and learn a folder under these settings (also sent when its settings change)."""

    folder: str
    settings: Settings
    trusted: bool = True


class Buffer(_Record, frozen=True, kw_only=True):
    """Text of an open document; `text` None: closed, the file on disk counts again. `path` is relative, with /."""

    folder: str
    path: str
    text: str | None


class Complete(_Record, frozen=True, kw_only=True):
    """One completion. `prefix`/`suffix` are the document's text around the cursor, clipped by the server.

    `folder` "" means no folder (base model). `invoked` is an explicit request.
    `must_start` is text the completion has to begin with (a selected popup entry's remainder). Only what is right
    with a probability of `min_confidence` is answered; 0 = all (see engine.sure).
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


class Timing(_Record, frozen=True, kw_only=True):
    """Milliseconds a completion spent."""

    prefill: float = 0.0
    decode: float = 0.0
    total: float = 0.0


LEFT_OUT = "The file is left out: it is ignored (.gitignore, .c2lignore, c2l.files.exclude) or its name says secret."
"""Reason of a completion without text: nothing of this file may be read."""


class Completion(_Record, frozen=True, kw_only=True):
    """The answer: candidate texts (best first, may be empty) and what they were computed under.

    `generation` is the adapter's counter, 0 for the bare model. `stop` says why decoding ended (eos, scope, lines,
    tokens, latency, repeat, suffix, unsure); `reason` why there is no text, else "".
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


class Score(_Record, frozen=True, kw_only=True):
    """How likely is `text` at a cursor? Prompt as for Complete."""

    folder: str
    prefix: str
    suffix: str
    text: str
    adapter: bool = True
    max_context_tokens: int = 1536


class Scored(_Record, frozen=True, kw_only=True):
    """Summed log-probability (nat) of a text's tokens, how many they are, and under which generation."""

    logprob: float
    tokens: int
    generation: int


class Cancel(_Record, frozen=True, kw_only=True):
    """Stop the request with this id; it is still answered, with the error `cancelled`."""

    id: int


class AdapterInfo(_Record, frozen=True, kw_only=True):
    """A folder's adapter as it stands. `scale` is the strength of its stronger half (matrices, recall), `recalled` how
    many positions it recalls; `deep` says what became of training on request, "" if nobody asked for it."""

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


DEEP = "deep"
"""Task of the Progress, and trigger of the AdapterChanged, of training on request."""


class Deepen(_Record, frozen=True, kw_only=True):
    """Train a LoRA of the folder by gradient descent, in the background (`cancel`: stop that). `steps` 0 chooses."""

    folder: str
    steps: int = 0
    cancel: bool = False


class Export(_Record, frozen=True, kw_only=True):
    """Write the folder's adapter as a PEFT directory. `rank` 0: the smallest rank that is exact."""

    folder: str
    out: str
    rank: int = 0


class Exported(_Record, frozen=True, kw_only=True):
    """What was written and how far it is from the engine's own adapter (relative Frobenius error of ΔW)."""

    out: str
    rank: int
    error: float
    generation: int


class SetEnabled(_Record, frozen=True, kw_only=True):
    """Turn a folder's adapter on or off."""

    folder: str
    enabled: bool


class Status(_Record, frozen=True, kw_only=True):
    """The engine as a whole."""

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
    """Something long: `done` of `total` `unit`s; `total` 0 is unknown. Ends with `finished`."""

    folder: str
    task: str
    done: int
    total: int
    unit: str
    finished: bool = False


class AdapterChanged(_Record, frozen=True, kw_only=True):
    """A new adapter generation is live. `trigger`: index, diff, settings, reset, restore, deep or gate; `ms` per stage.

    `paths`: the largest of the changed files; `moved`: relative distance from the adapter before, 0 without one.
    """

    info: AdapterInfo
    trigger: str
    changed_files: int
    ms: dict[str, float]
    paths: list[str] = []
    moved: float = 0.0


class Trouble(_Record, frozen=True, kw_only=True):
    """Something a user should know: the error's code, severity and sentence. `folder` "" means the engine."""

    folder: str
    code: str
    severity: str
    message: str


EVENTS: dict[str, type[Struct]] = {"progress": Progress, "adapter_changed": AdapterChanged, "trouble": Trouble}


# --- frames ----------------------------------------------------------------------------------------------------------


class Request(_Record, frozen=True, kw_only=True, tag_field="t", tag="q"):
    """A call by the server."""

    id: int
    method: str
    params: dict[str, Any]


class Reply(_Record, frozen=True, kw_only=True, tag_field="t", tag="r"):
    """The answer to Request `id`: a result, or an error (code of errors.py, sentence)."""

    id: int
    result: dict[str, Any] | None = None
    error: tuple[str, str] | None = None


class Event(_Record, frozen=True, kw_only=True, tag_field="t", tag="e"):
    """Told by the engine unasked."""

    name: str
    data: dict[str, Any]


Frame = Request | Reply | Event
_T = TypeVar("_T", bound=Struct)


def pack(frame: Frame) -> bytes:
    """Bytes of a frame, length included. WireError if it is larger than MAX_FRAME."""
    body: bytes = msgpack.packb(msgspec.to_builtins(frame), use_bin_type=True, unicode_errors="surrogatepass")
    if len(body) > MAX_FRAME:
        raise WireError(f"A frame of {len(body)} bytes is over the limit of {MAX_FRAME}.")
    return _LENGTH.pack(len(body)) + body


def unpack(body: bytes) -> Frame:
    """The frame of these bytes (without length), checked. WireError otherwise."""
    try:
        plain = msgpack.unpackb(body, raw=False, strict_map_key=True, unicode_errors="surrogatepass")
        frame: Frame = msgspec.convert(plain, Frame, strict=True)
    except (ValueError, TypeError, RecursionError, msgpack.UnpackException, msgspec.ValidationError) as error:
        raise WireError(f"A frame is malformed: {error}.") from error
    return frame


def frame_length(header: bytes) -> int:
    """Length announced by a 4-byte header. WireError if over MAX_FRAME."""
    length: int = _LENGTH.unpack(header)[0]
    if length > MAX_FRAME:
        raise WireError(f"A frame of {length} bytes is announced; the limit is {MAX_FRAME}.")
    return length


def read(stream: BinaryIO) -> Frame | None:
    """The next frame of a blocking stream; None at its end. WireError if it is cut short or malformed."""
    header = _exactly(stream.read, 4)
    if header is None:
        return None
    body = _exactly(stream.read, frame_length(header))
    if body is None:
        raise WireError("The stream ended inside a frame.")
    return unpack(body)


def _exactly(take: Callable[[int], bytes], size: int) -> bytes | None:
    parts = bytearray()
    while len(parts) < size:
        chunk = take(size - len(parts))
        if not chunk:
            if parts:
                raise WireError("The stream ended inside a frame.")
            return None if size else b""
        parts += chunk
    return bytes(parts)


def to_params(record: Struct) -> dict[str, Any]:
    """A record as the plain map that goes into a frame."""
    plain: dict[str, Any] = msgspec.to_builtins(record)
    return plain


def from_params(plain: dict[str, Any] | None, kind: type[_T]) -> _T:
    """The typed record of a plain map. WireError naming the key that is wrong."""
    try:
        return msgspec.convert(plain or {}, kind, strict=True)
    except msgspec.ValidationError as error:
        raise WireError(f"{kind.__name__}: {error}.") from error
