"""A fake engine process with the real wire protocol, without torch and model. It starts in 0.1 s.

A completion depends only on the prefix. Words in the prefix control it, but not what is read ahead:

| word       | effect                                   |
|------------|------------------------------------------|
| `SLOW:0.4` | waits that long; can be cancelled        |
| `DIE`      | exits                                    |
| `HANG`     | answers nothing any more                 |
| `MUTE`     | does not answer this request             |
| `CLOSE`    | closes brackets                          |
| `LINES`    | returns three lines                      |
| `NOTHING`  | returns no text                          |
| `LEFT_OUT` | returns the reason "left out"            |
| `REFUSE`   | returns an error                         |
| `GARBAGE`  | writes bytes that are no frame           |
| `HUGE`     | announces a frame over the limit         |

Environment: FAKE_LOG, a file for one JSON line per request; FAKE_START: die, error, slow, mute or die-twice;
FAKE_FOLDER: trouble or silent.
"""

from __future__ import annotations

import json
import os
import re
import struct
import sys
import threading
import time
from pathlib import Path

from c2l_lsp.engine import wire

FOLDERS: dict[str, wire.OpenFolder] = {}
GENERATION: dict[str, int] = {}
ENABLED: dict[str, bool] = {}
BUFFERS: dict[tuple[str, str], str] = {}
CANCELLED: set[int] = set()
DEEP: dict[str, str] = {}
FINETUNE_LOCK = threading.Lock()
OUT = threading.Lock()
HUNG = threading.Event()


def send(frame: wire.Frame) -> None:
    if not HUNG.is_set():
        with OUT:
            sys.stdout.buffer.write(wire.pack(frame))
            sys.stdout.buffer.flush()


def emit(event: wire.Struct) -> None:
    name = next(name for name, kind in wire.EVENTS.items() if type(event) is kind)
    send(wire.Event(name=name, data=wire.to_params(event)))


def note(**fields: object) -> None:
    if path := os.environ.get("FAKE_LOG"):
        with Path(path).open("a", encoding="utf-8") as log:
            log.write(json.dumps({"pid": os.getpid(), **fields}) + "\n")


def traceback(line: int, last: str) -> None:
    """Print a traceback as Python does for an uncaught exception."""
    frame = f'  File "/opt/c2l_lsp/engine/worker.py", line {line}, in main\n    import torch\n'
    print(f"Traceback (most recent call last):\n{frame}{last}", file=sys.stderr, flush=True)


def info(folder: str) -> wire.AdapterInfo:
    return wire.AdapterInfo(
        folder=folder, generation=GENERATION.get(folder, 0), kind="memory", enabled=ENABLED.get(folder, True),
        files=3, chunks=9, pending_files=0, norm=1.0, scale=1.0, updated_at=1.0, state="ready",
        deep=DEEP.get(folder, ""),
    )  # fmt: skip


def learn(folder: str, trigger: str) -> None:
    for done in (0, 1, 2):
        emit(wire.Progress(folder=folder, task="index", done=done, total=2, unit="files", finished=done == 2))
    GENERATION[folder] = GENERATION.get(folder, 0) + 1
    emit(
        wire.AdapterChanged(
            info=info(folder), trigger=trigger, changed_files=3, ms={"update": 1.0}, paths=["a.py", "b.py"], moved=0.25
        )
    )


def deepen(folder: str, steps: int) -> None:
    """Report `steps` training steps of 50 ms each, unless the training is cancelled."""
    for done in range(steps):
        with FINETUNE_LOCK:
            if not DEEP[folder]:
                break
            DEEP[folder] = f"training, {done} of {steps} steps"
        emit(wire.Progress(folder=folder, task="deep", done=done, total=steps, unit="steps"))
        time.sleep(0.05)
    emit(wire.Progress(folder=folder, task="deep", done=done, total=steps, unit="steps", finished=True))
    if DEEP[folder]:
        DEEP[folder] = "live: -0.100 nat/token on held-out files against without it"
        GENERATION[folder] += 1
        emit(wire.AdapterChanged(info=info(folder), trigger="deep", changed_files=0, ms={}))


def text_for(request: wire.Complete) -> list[str]:
    if "NOTHING" in request.prefix or "LEFT_OUT" in request.prefix:
        return []
    word = (re.findall(r"\w+", request.prefix) or ["start"])[-1]
    tag = f"_g{GENERATION.get(request.folder, 0)}" if request.adapter and request.folder else ""
    text = request.must_start or ""
    if "CLOSE" in request.prefix:
        return [text + f"{word}_arg)"]
    if "LINES" in request.prefix:
        return [text + f"{word}_one\n    two\n    three"]
    return [text + f"_{word}{tag}_{n}()" for n in range(request.candidates)]


def complete(request_id: int, request: wire.Complete) -> None:
    prefix = request.prefix
    if request.read_only:
        nothing = wire.Completion(texts=[], generation=0, prompt_tokens=7, new_tokens=0, ms=wire.Timing())
        send(wire.Reply(id=request_id, result=wire.to_params(nothing)))
        return
    if "DIE" in prefix:
        traceback(34, f"KeyError: {prefix!r}")
        os._exit(9)
    if "HANG" in prefix:
        HUNG.set()
    if "MUTE" in prefix:
        return
    if "GARBAGE" in prefix:
        with OUT:
            sys.stdout.buffer.write(struct.pack(">I", 7) + b"garbage")
            sys.stdout.buffer.flush()
    if "HUGE" in prefix:
        with OUT:
            sys.stdout.buffer.write(struct.pack(">I", wire.MAX_FRAME + 1))
            sys.stdout.buffer.flush()
    print("a stray print of the engine", file=sys.stderr)
    found = re.search(r"SLOW:([\d.]+)", prefix)
    deadline = time.monotonic() + (float(found[1]) if found else 0.0)
    while time.monotonic() < deadline:
        if request_id in CANCELLED:
            note(cancelled=request_id)
            send(wire.Reply(id=request_id, error=("cancelled", "The request was cancelled.")))
            return
        time.sleep(0.005)
    if "REFUSE" in prefix:
        send(wire.Reply(id=request_id, error=("request", "The fake refuses this.")))
        return
    generation = GENERATION.get(request.folder, 0) if request.adapter else 0
    texts = text_for(request)
    closes = "CLOSE" in prefix and request.suffix.startswith(")")
    answer = wire.Completion(
        texts=texts, replaced=[1] * len(texts) if closes else [], generation=generation, prompt_tokens=7, new_tokens=3,
        ms=wire.Timing(prefill=1.0, decode=2.0, total=3.0), stop="eos",
        reason=wire.LEFT_OUT if "LEFT_OUT" in prefix else "",
    )  # fmt: skip
    send(wire.Reply(id=request_id, result=wire.to_params(answer)))


def hello(params: wire.Hello) -> wire.Struct | tuple[str, str]:
    how = os.environ.get("FAKE_START", "")
    if how == "die":
        traceback(12, "ModuleNotFoundError: No module named 'torch'")
        os._exit(3)
    if how == "die-twice":
        marks = Path(os.environ["FAKE_LOG"]).read_text(encoding="utf-8").count('"method": "hello"')
        if marks <= 2:
            os._exit(3)
    if how == "error":
        return "model", f"The model {params.settings.model.id} cannot be found."
    if how == "mute":
        HUNG.set()
    if how == "slow":
        time.sleep(1.0)
    return wire.ModelInfo(
        id=params.settings.model.id, parameters=1, device="cpu", dtype="float32", fim=True,
        max_context=2048, digest="0", load_ms=1.0,
    )  # fmt: skip


def answer(request: wire.Request) -> wire.Struct | tuple[str, str]:
    params = wire.from_params(request.params, wire.METHODS[request.method][0])
    if isinstance(params, wire.Hello):
        return hello(params)
    if isinstance(params, wire.OpenFolder):
        FOLDERS[params.folder] = params
        how = os.environ.get("FAKE_FOLDER", "")
        if how == "trouble":
            emit(wire.Trouble(folder=params.folder, code="storage", severity="warning", message="No space is left."))
        elif how != "silent" and params.trusted:
            learn(params.folder, "index")
    elif isinstance(params, wire.Buffer):
        BUFFERS[params.folder, params.path] = params.text or ""
    elif request.method == "adapter_info":
        return info(params.folder)
    elif request.method in ("regenerate", "reset"):
        learn(params.folder, request.method)
    elif isinstance(params, wire.Deepen):
        with FINETUNE_LOCK:
            DEEP[params.folder] = "" if params.cancel else "waiting"
        told = info(params.folder)  # before the thread changes it
        if not params.cancel:
            threading.Thread(target=deepen, args=(params.folder, params.steps or 4000), daemon=True).start()
        return told
    elif isinstance(params, wire.SetEnabled):
        ENABLED[params.folder] = params.enabled
        return info(params.folder)
    elif isinstance(params, wire.Export):
        return wire.Exported(out=params.out, rank=params.rank or 8, error=0.0, generation=1)
    return wire.Nothing()


def main() -> None:
    note(started=True)
    while (frame := wire.read(sys.stdin.buffer)) is not None:
        assert isinstance(frame, wire.Request)
        shown = {k: v for k, v in frame.params.items() if k != "settings"}
        note(method=frame.method, id=frame.id, params=shown)
        if frame.method == "cancel":
            CANCELLED.add(frame.params["id"])
        if frame.method == "complete":
            params = wire.from_params(frame.params, wire.Complete)
            threading.Thread(target=complete, args=(frame.id, params), daemon=True).start()
            continue
        result = answer(frame)
        if isinstance(result, tuple):
            send(wire.Reply(id=frame.id, error=result))
        else:
            send(wire.Reply(id=frame.id, result=wire.to_params(result)))
        if frame.method == "shutdown":
            break
    note(ended=True)


if __name__ == "__main__":
    main()
