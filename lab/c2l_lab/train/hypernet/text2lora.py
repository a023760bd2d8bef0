"""`text2lora`: a LoRA from descriptions of the files instead of their code. The control for `static`.

As Text-to-LoRA (arXiv 2506.06105) does with the description of a task: each file is described in words (its docstring,
the names it defines and the first line of their docstrings), the encoder of `static` embeds the descriptions, they are
pooled as files are, and the same head generates the weights.
"""

from __future__ import annotations

import re

from c2l_lsp.model.hypernet.code2lora import Static
from c2l_lsp.model.hypernet.protocol import Chunk

_DOCSTRING = re.compile(r"\A(?:[ \t]*(?:#[^\n]*)?\n)*[rRuU]?(\"\"\"|''')(.*?)\1", re.DOTALL)
_DEFINED = re.compile(r"^(?:async[ ]+)?(?:def|class)[ ]+(\w+)[^\n]*(?:\n[ \t]+[rRuU]?\"\"\"([^\n\"]*))?", re.MULTILINE)
MAX_CHARS = 4000


def describe(text: str) -> str:
    """The description of a Python file, at most MAX_CHARS characters; "" if it has no docstring and no definition."""
    found = _DOCSTRING.match(text)
    lines = [found[2].strip()] if found else []
    lines += [f"{name}: {line.strip()}" if line else name for name, line in _DEFINED.findall(text)]
    return "\n".join(lines)[:MAX_CHARS]


class Text2LoRA(Static):
    """`Hypernetwork` whose state is the set of vectors of the files' descriptions; otherwise as `Static`."""

    kind = "text2lora"

    def chunks(self, text: str) -> list[Chunk]:
        """The description of the file as one chunk; none if it is empty."""
        return super().chunks(describe(text))
