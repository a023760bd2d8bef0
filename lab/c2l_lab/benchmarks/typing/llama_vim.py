"""The peer of `bench typing`: llama.cpp with the same weights, behind the rules of llama.vim (without its ring buffer).

The rules: 256 lines before and 64 lines after the cursor; no request if more than 8 characters follow on the line; a
line with less indentation than the cursor line ends the text; a text that repeats the next lines is dropped. They are
those of llama.vim (`autoload/llama.vim`) and of the parameter `n_indent` of llama.cpp's server. Decoding is greedy.
"""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from types import TracebackType

from c2l_lab.benchmarks.perf import gguf
from c2l_lab.benchmarks.typing.author import Ghost
from c2l_lsp.errors import ModelError
from c2l_lsp.model.lm.base import BaseModel

_LINES_BEFORE, _LINES_AFTER, _MOST_AFTER = 256, 64, 8
_TOKENS = 64
"""Tokens of a text, at most. llama.vim allows 256; its author would see longer wrong texts."""
_SCRIPT = Path(__file__).with_suffix(".mjs")


class LlamaVim:
    """A side of the comparison. `node`: the folder where `npm install node-llama-cpp` was run."""

    def __init__(self, model: BaseModel, node: Path, folder: Path, threads: int = 1) -> None:
        if model.fim is None:
            raise ModelError("llama.vim needs a model with fill-in-the-middle tokens.")
        self._model, self._fim, self._before, self._after = model, model.fim, "", ""
        path = folder / f"{model.digest[:16]}.gguf"
        if not path.is_file():
            gguf.export(model, path, "Q8_0")
        command = ["node", str(_SCRIPT), str(node), str(path), str(model.max_context), str(threads)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self._receive()

    def __enter__(self) -> LlamaVim:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._process.kill()
        self._process.wait()

    def open(self, path: str, before: str, after: str) -> None:
        """See sides.Side."""
        self.edit(before, after)

    def edit(self, before: str, after: str) -> None:
        """See sides.Side."""
        self._before, self._after = before, after

    def ask(self, wait_s: float) -> tuple[Ghost | None, bool]:
        """See sides.Side. It always waits for the answer."""
        rest = self._after.partition("\n")[0]
        if len(rest) > _MOST_AFTER:
            return None, True
        text = shown(self._complete(), self._before, self._after)
        return (Ghost(text) if text else None), True

    def _complete(self) -> str:
        """The text that llama.cpp writes at the cursor."""
        head, _, line = self._before.rpartition("\n")
        rest, _, below = self._after.partition("\n")
        if not (line + rest).strip():
            line = rest = ""
        prefix = "\n".join(head.split("\n")[-_LINES_BEFORE:]) + "\n"
        suffix = f"{rest}\n" + "\n".join(below.split("\n")[:_LINES_AFTER]) + "\n"
        room = self._model.max_context - _TOKENS - 8
        middle = self._model.encode(line)[-room // 4 :]
        after = self._model.encode(suffix)[: room // 4]
        before = self._model.encode(prefix)[-(room - len(after) - len(middle)) :]
        request = {"ids": self._fim.prompt(before, after, middle), "most": _TOKENS, "stops": sorted(self._model.stops)}
        stdin = self._process.stdin
        if stdin is None:
            raise ModelError("node has no stdin.")
        stdin.write(json.dumps(request) + "\n")
        stdin.flush()
        return self._model.decode(self._receive())

    def _receive(self) -> list[int]:
        line = self._process.stdout.readline() if self._process.stdout is not None else ""
        if not line:
            raise ModelError("node-llama-cpp ended.")
        found: list[int] = json.loads(line)
        return found


def shown(content: str, before: str, after: str) -> str:
    """Return what llama.vim shows of a text at a cursor; "" if nothing."""
    line, (rest, _, below) = before.rpartition("\n")[2], after.partition("\n")
    lines = _indented(content, line).rstrip("\n").split("\n")
    if not (line + rest).strip():
        lead = min(len(lines[0]) - len(lines[0].lstrip()), len(line))
        line, lines[0] = lines[0][:lead], lines[0][lead:]
    following = below.split("\n")
    if len(lines) == 1 and lines[0] in ("", rest):
        return ""
    if len(lines) > 1 and not lines[0] and lines[1:] == following[: len(lines) - 1]:
        return ""
    if _repeats_next(lines, line, following):
        return ""
    text = "\n".join(lines)
    return text if text.strip() else ""


def _indented(content: str, line: str) -> str:
    """The text before its first line that is indented less than the cursor line."""
    least = len(line) - len(line.lstrip()) if line.strip() else 0
    lines = content.split("\n")
    for number, one in enumerate(lines[1:], 1):
        if one.strip() and len(one) - len(one.lstrip()) < least:
            return "\n".join(lines[:number])
    return content


def _repeats_next(lines: list[str], line: str, following: list[str]) -> bool:
    at = next((number for number, one in enumerate(following) if one.strip()), len(following) - 1)
    if line + lines[0] != following[at]:
        return False
    after = following[at + 1 :]
    if len(lines) == 2:
        return bool(after) and after[0].startswith(lines[1])
    return len(lines) == 1 or lines[1:] == after[: len(lines) - 1]
