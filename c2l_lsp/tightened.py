"""The settings of what may be read, which a workspace can make stricter and not laxer: a table and one question."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

REFUSED = "is left as it was: only user settings may let more be read"
TIGHTENED: dict[str, Callable[[Any, Any], Any]] = {
    "files.exclude": lambda own, wished: [*(one for one in wished if one not in own), *own],  # the last one decides
    "files.respectGitignore": lambda own, wished: own or wished,
    "files.ignoreFile": lambda own, _wished: own,
    "files.maxSizeKb": min,
    "adapter.maxIndexKb": min,
}
"""What may be read at all, and how much: the user's value and a workspace's wish give what holds in the workspace. A
repository's own settings can leave more out; none can let in what the user leaves out, or make the index huge."""


def laxer(held: object, wished: object, default: object) -> bool:
    """Whether a workspace was refused. Lists are added up, and an editor that echoes a default wishes nothing."""
    return held != wished and not isinstance(held, list) and wished != default
