"""The data of the measurements: git repositories, their Python texts, folders made of them, and the machine."""

from __future__ import annotations

import itertools
import os
import platform
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from c2l_lab.repositories.source import usable
from c2l_lsp.config import Settings
from c2l_lsp.errors import CorpusError, GitError
from c2l_lsp.model.lm import base
from c2l_lsp.model.lm.base import BaseModel
from c2l_lsp.repo.history import git_history


@dataclass
class Workload:
    """The arguments of a run: model settings, repositories, repeats, threads, and a work folder.

    small: use the smallest sizes, to test that the rows run; the values mean nothing.
    """

    settings: Settings
    roots: Sequence[Path]
    work: Path
    repeats: int
    threads: int
    small: bool = False
    speed: float = 1.0
    places: int = 40
    _texts: list[str] = field(default_factory=list)

    @cached_property
    def model(self) -> BaseModel:
        """The base model, loaded once for all rows."""
        return base.load(self.settings.model)

    def texts(self, count: int) -> list[str]:
        """The Python files of the repositories at their newest commit, in turn. CorpusError if there are none."""
        if len(self._texts) < count:
            streams = [_files(root) for root in self.roots]
            turns = itertools.chain.from_iterable(itertools.zip_longest(*streams))
            self._texts = list(itertools.islice((text for text in turns if text), count))
        if not self._texts:
            raise CorpusError("The repositories contain no Python file. Name others with --list and --mirror.")
        return [self._texts[i % len(self._texts)] for i in range(count)]

    def prompts(self, count: int, tokens: int) -> list[list[int]]:
        """The first `tokens` tokens of several files."""
        found = []
        for text in self.texts(20 * count):
            ids = self.model.encode(text)
            if len(ids) >= tokens:
                found.append(ids[:tokens])
            if len(found) == count:
                return found
        raise CorpusError(f"Too few files have {tokens} tokens. Name more repositories.")

    def folder(self, name: str, files: int) -> Path:
        """A folder with `count` different files of code; made once."""
        root = self.work / f"{name}-{files}"
        if not root.is_dir():
            texts = self.texts(min(files, 400))
            part = root.with_suffix(".part")
            for number in range(files):
                path = part / f"p{number % 50}" / f"m{number}.py"
                path.parent.mkdir(parents=True, exist_ok=True)
                head = f'"""Module {number} of {name}."""\n\nNUMBER_{number} = {number}\n\n'
                path.write_text(head + texts[number % len(texts)], encoding="utf-8", errors="replace")
            part.rename(root)
        return root


def _files(root: Path) -> Iterator[str]:
    try:
        sha = git_history.head_commit(root)
        tree = git_history.tree(root, sha) if sha else {}
        wanted = [blob for path, blob in sorted(tree.items()) if path.endswith(".py")]
        for _, raw in git_history.blobs(root, wanted):
            text = usable("a.py", raw)
            if text and len(text) > 400:
                yield text
    except GitError:
        return


def machine(threads: int) -> dict[str, Any]:
    """The machine, for the manifest."""
    import torch

    name = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        lines = cpuinfo.read_text("utf-8", "replace").splitlines()
        fields = {k.strip(): v.strip() for k, _, v in (line.partition(":") for line in lines)}
        family, number = fields.get("cpu family", "?"), fields.get("model", "?")
        name = f"{fields.get('model name', name)} (family {family}, model {number})"
    return {
        "cpu": name,
        "cores": os.cpu_count(),
        "threads": threads,
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else "",
        "system": f"{platform.system()} {platform.machine()}",
        "torch": torch.__version__.partition("+")[0],
    }


def load_now() -> Mapping[str, float]:
    """The load of the machine, for the manifest."""
    try:
        one, five, _ = os.getloadavg()
    except OSError:
        return {}
    return {"load 1 min": round(one, 2), "load 5 min": round(five, 2)}
