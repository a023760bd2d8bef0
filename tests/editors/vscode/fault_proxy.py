"""Proxy between VS Code and the server: records messages and injects faults.

`fault_proxy.py FOLDER COMMAND…` starts COMMAND and forwards messages in both directions. It uses these files:

  FOLDER/fault           name of the fault to inject; absent: none
  FOLDER/messages.jsonl  one line per recorded message
  FOLDER/pid             process id of the proxy

Faults:

  wrong-text               change the text of completions
  empty-results            remove all completions from results
  no-code-actions          remove all code actions from results
  unconfirmed-edits        remove from code actions that their edits need a confirmation
  first-generation-texts   return the fake engine's texts as of generation 1
  ignore-toggle            answer toggle commands without forwarding them
  ignore-fine-tuning       answer requests for fine-tuning without forwarding them
  ignore-reset             answer requests to reset an adapter without forwarding them
  drop-notifications       drop status and adapter notifications
  drop-settings-change     drop notifications of changed settings
  drop-trust-change        drop notifications of granted trust
  drop-cursor              drop notifications of where the cursor rests, as if they were not sent
  drop-notebooks           drop notifications of notebooks, as if they were not sent
  drop-switches            start a server without the user's switches
  drop-user-settings       start a server without the user's settings
  always-trusted           start a server with every folder trusted
  wrong-generation         change generation numbers in notifications
  exit-at-start            end every new process at once
  exit-on-settings-change  end the server when a setting changes
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
ACTIONS, CURSOR = "textDocument/codeAction", "c2l/didMoveCursor"
RECORDED = (COMPLETE, EXECUTE, CURSOR, "c2l/didChangeStatus", "c2l/adapter/didChange", "initialize",
            "workspace/didChangeConfiguration")  # fmt: skip
AT_START = {
    "drop-switches": {"switches": {}},
    "always-trusted": {"trusted": True},
    "drop-user-settings": {"userSettings": {}},
}
"""Initialization options that a fault replaces."""
pending: dict[int | str, str] = {}
"""Methods of the editor's open requests, by id."""
lock = threading.Lock()


def fault() -> str:
    try:
        return (FOLDER / "fault").read_text(encoding="utf-8").strip()
    except OSError:
        return ""


FAULT_AT_START = fault()


def record(**fields: object) -> None:
    with lock, (FOLDER / "messages.jsonl").open("a", encoding="utf-8") as file:
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
        pending[message["id"]] = method
    if method == CURSOR and fault() == "drop-cursor":
        return None
    if method in RECORDED:
        record(method=method, id=message.get("id"), params=message.get("params"))
    if (
        method == "workspace/didChangeConfiguration"
        and fault() == "exit-on-settings-change"
        and FAULT_AT_START != "exit-on-settings-change"
    ):
        os._exit(1)
    if method == "workspace/didChangeConfiguration" and fault() == "drop-settings-change":
        return None
    if str(method).startswith("notebookDocument/") and fault() == "drop-notebooks":
        return None
    if method == "c2l/didChangeTrust" and fault() == "drop-trust-change":
        return None
    if method == "c2l/adapter/deepen" and fault() == "ignore-fine-tuning":
        with lock:
            write(editor, {"jsonrpc": "2.0", "id": message["id"], "result": {"deep": ""}})
        return None
    if method == "initialize" and fault() in AT_START:
        message["params"]["initializationOptions"] |= AT_START[fault()]
    if method == "c2l/adapter/reset" and fault() == "ignore-reset":
        with lock:
            write(editor, {"jsonrpc": "2.0", "id": message["id"], "result": {}})
        return None
    toggled = method == EXECUTE and str(message["params"]["command"]).startswith("c2l.toggle")
    if toggled and fault() == "ignore-toggle":
        with lock:
            write(editor, {"jsonrpc": "2.0", "id": message["id"], "result": {"enabled": False}})
        return None
    return message


def to_editor(message: dict[str, Any]) -> dict[str, Any] | None:
    method = message.get("method")
    if method is None:
        method = pending.pop(message.get("id", ""), "")
        if method == COMPLETE and fault() == "first-generation-texts":
            _as_first_generation(message)
        if method.startswith("c2l/") or method == COMPLETE:
            record(answer=method, id=message.get("id"), result=message.get("result"), error=message.get("error"))
        if method == COMPLETE:
            return _with_wrong_completions(message)
        if method == ACTIONS and fault() == "no-code-actions":
            message["result"] = []
        if method == ACTIONS and fault() == "unconfirmed-edits":
            for action in message.get("result") or []:
                action["edit"].pop("changeAnnotations", None)
        return message
    if method in RECORDED:
        record(method=method, params=message.get("params"))
    if method == "c2l/adapter/didChange" and fault() == "wrong-generation":
        message["params"]["generation"] += 1000
    return None if method.startswith("c2l/") and fault() == "drop-notifications" else message


def _as_first_generation(message: dict[str, Any]) -> None:
    """Replace the generation number in the fake engine's texts by 1."""
    for item in (message.get("result") or {}).get("items", []):
        item["insertText"] = re.sub(r"_g\d+", "_g1", item["insertText"])


def _with_wrong_completions(message: dict[str, Any]) -> dict[str, Any]:
    items = (message.get("result") or {}).get("items", [])
    if fault() == "empty-results":
        items.clear()
    if fault() == "wrong-text":
        for item in items:
            item["insertText"] = "wrong" + item["insertText"]
    return message


def main() -> int:
    (FOLDER / "pid").write_text(str(os.getpid()))
    if fault() == "exit-at-start":
        return 1
    server = subprocess.Popen(sys.argv[2:], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert server.stdin is not None and server.stdout is not None
    editor_in, editor_out = sys.stdin.buffer, sys.stdout.buffer

    def forward() -> None:
        while (message := read(editor_in)) is not None:
            if (forwarded := to_server(message, editor_out)) is not None:
                write(server.stdin, forwarded)
        server.stdin.close()

    threading.Thread(target=forward, daemon=True).start()
    while (message := read(server.stdout)) is not None:
        if (forwarded := to_editor(message)) is not None:
            with lock:
                write(editor_out, forwarded)
    return server.wait(10)


if __name__ == "__main__":
    sys.exit(main())
