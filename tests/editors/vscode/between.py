"""Stands between VS Code and the server: writes down what passes, and plants a fault when told to.

`between.py FOLDER COMMAND…` starts COMMAND and passes messages on. FOLDER/fault names the fault of the moment (or is
not there), FOLDER/passed.jsonl gets one line per message worth knowing, FOLDER/pid the id of this process. Faults:
`wrong-text` changes what is inserted, `deaf` swallows every toggle, `mute` swallows status and adapter notifications,
`stay-dead` ends every new process at once, `no-answers` empties the answers to completions, `frozen` swallows changes
of settings, `untrained` answers a wish for training itself, `unforgotten` one to forget, `forgetful` tells a new
server nothing of switches, `stale` gives the fake engine's texts as of the first generation, `trusting` tells a new
server that every folder is trusted, `distrusting` swallows that one is now, `unset` tells a new server none of the
user's settings, `restless` ends the server when a setting has changed, `renumbered` tells of wrong generations.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any, BinaryIO

FOLDER = Path(sys.argv[1]) if len(sys.argv) > 1 else Path()
COMPLETE, EXECUTE = "textDocument/inlineCompletion", "workspace/executeCommand"
NOTED = (COMPLETE, EXECUTE, "c2l/didChangeStatus", "c2l/adapter/didChange", "initialize",
         "workspace/didChangeConfiguration")  # fmt: skip
AT_START = {"forgetful": {"switches": {}}, "trusting": {"trusted": True}, "unset": {"userSettings": {}}}
"""What a new server is told in place of the truth."""
asked: dict[int | str, str] = {}
"""Methods of the editor's open requests."""
lock = threading.Lock()


def fault() -> str:
    try:
        return (FOLDER / "fault").read_text(encoding="utf-8").strip()
    except OSError:
        return ""


BEGUN_WITH = fault()
"""What was planted when this process began."""


def note(**fields: object) -> None:
    with lock, (FOLDER / "passed.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps({"pid": os.getpid(), **fields}) + "\n")


def read(stream: BinaryIO) -> dict[str, Any] | None:
    length = 0
    while (line := stream.readline()) not in (b"\r\n", b""):
        if line.lower().startswith(b"content-length:"):
            length = int(line.split(b":")[1])
    body = stream.read(length)
    return json.loads(body) if length and len(body) == length else None


def write(stream: BinaryIO, message: dict[str, Any]) -> None:
    body = json.dumps(message).encode()
    stream.write(b"Content-Length: %d\r\n\r\n%s" % (len(body), body))
    stream.flush()


def to_server(message: dict[str, Any], editor: BinaryIO) -> dict[str, Any] | None:
    method = message.get("method")
    if method is not None and "id" in message:
        asked[message["id"]] = method
    if method in NOTED:
        note(method=method, id=message.get("id"), params=message.get("params"))
    if method == "workspace/didChangeConfiguration" and fault() == "restless" and BEGUN_WITH != "restless":
        os._exit(1)
    if method == "workspace/didChangeConfiguration" and fault() == "frozen":
        return None
    if method == "c2l/didChangeTrust" and fault() == "distrusting":
        return None
    if method == "c2l/adapter/deepen" and fault() == "untrained":
        with lock:
            write(editor, {"jsonrpc": "2.0", "id": message["id"], "result": {"deep": ""}})
        return None
    if method == "initialize" and fault() in AT_START:
        message["params"]["initializationOptions"] |= AT_START[fault()]
    if method == "c2l/adapter/reset" and fault() == "unforgotten":
        with lock:
            write(editor, {"jsonrpc": "2.0", "id": message["id"], "result": {}})
        return None
    toggled = method == EXECUTE and str(message["params"]["command"]).startswith("c2l.toggle")
    if toggled and fault() == "deaf":
        with lock:
            write(editor, {"jsonrpc": "2.0", "id": message["id"], "result": {"enabled": False}})
        return None
    return message


def to_editor(message: dict[str, Any]) -> dict[str, Any] | None:
    method = message.get("method")
    if method is None:
        method = asked.pop(message.get("id", ""), "")
        if method == COMPLETE and fault() == "stale":
            _as_first(message)
        if method.startswith("c2l/") or method == COMPLETE:
            note(answer=method, id=message.get("id"), result=message.get("result"), error=message.get("error"))
        if method == COMPLETE:
            return _spoilt(message)
        return message
    if method in NOTED:
        note(method=method, params=message.get("params"))
    if method == "c2l/adapter/didChange" and fault() == "renumbered":
        message["params"]["generation"] += 1000
    return None if method.startswith("c2l/") and fault() == "mute" else message


def _as_first(message: dict[str, Any]) -> None:
    """As if no adapter had come after the first."""
    for item in (message.get("result") or {}).get("items", []):
        item["insertText"] = re.sub(r"_g\d+", "_g1", item["insertText"])


def _spoilt(message: dict[str, Any]) -> dict[str, Any]:
    items = (message.get("result") or {}).get("items", [])
    if fault() == "no-answers":
        items.clear()
    if fault() == "wrong-text":
        for item in items:
            item["insertText"] = "wrong" + item["insertText"]
    return message


def main() -> int:
    (FOLDER / "pid").write_text(str(os.getpid()))
    if fault() == "stay-dead":
        return 1
    server = subprocess.Popen(sys.argv[2:], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert server.stdin is not None and server.stdout is not None
    editor_in, editor_out = sys.stdin.buffer, sys.stdout.buffer

    def forward() -> None:
        while (message := read(editor_in)) is not None:
            if (kept := to_server(message, editor_out)) is not None:
                write(server.stdin, kept)
        server.stdin.close()

    threading.Thread(target=forward, daemon=True).start()
    while (message := read(server.stdout)) is not None:
        if (kept := to_editor(message)) is not None:
            with lock:
                write(editor_out, kept)
    return server.wait(10)


if __name__ == "__main__":
    sys.exit(main())
