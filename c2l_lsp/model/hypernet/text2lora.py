"""A LoRA from what is said about a repository, not from its code: the control that a hypernetwork must beat.

As Text-to-LoRA (arXiv 2506.06105) does with a task's description: each file is described in words (its docstring, the
names it defines, the first line of what is said of each), the same encoder embeds the descriptions, they are pooled as
files are in `static`, and the same head makes the weights.
"""

from __future__ import annotations

import re

from c2l_lsp.model.hypernet.code2lora import Static
from c2l_lsp.model.hypernet.protocol import Chunk

_DOCSTRING = re.compile(r"\A(?:[ \t]*(?:#[^\n]*)?\n)*[rRuU]?(\"\"\"|''')(.*?)\1", re.DOTALL)
_DEFINED = re.compile(r"^(?:async[ ]+)?(?:def|class)[ ]+(\w+)[^\n]*(?:\n[ \t]+[rRuU]?\"\"\"([^\n\"]*))?", re.MULTILINE)
MAX_CHARS = 4000


def describe(text: str) -> str:
    """What a Python file says of itself: at most MAX_CHARS characters, "" if it says nothing."""
    found = _DOCSTRING.match(text)
    said = [found[2].strip()] if found else []
    said += [f"{name}: {line.strip()}" if line else name for name, line in _DEFINED.findall(text)]
    return "\n".join(said)[:MAX_CHARS]


class Text2LoRA(Static):
    """`Hypernetwork` whose state is the set of vectors of the files' descriptions; otherwise as `Static`."""

    kind = "text2lora"

    def chunks(self, text: str) -> list[Chunk]:
        """The file's description as one piece; none if it says nothing."""
        return super().chunks(describe(text))
