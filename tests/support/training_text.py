"""Texts for temporary repositories."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

MIT = "MIT License\n\nPermission is hereby granted, free of charge, to any person obtaining a copy of this software\n"

MakeRepository = Callable[..., Path]


def module(name: str, salt: int = 0, count: int = 6) -> str:
    """Return a small Python module. Modules of different names are not near-duplicates."""
    lines = [f'"""The {name} of number {salt}."""', "", "import os", ""]
    for i in range(count):
        lines += [
            f"def {name}_{i}(first_{name}, second):",
            f"    total = first_{name} * {salt + i} + second",
            f"    if total > {i}:",
            f"        return os.path.join('{name}', str(total))",
            f"    return {name}_{i}(total, second - {i})",
            "",
        ]
    return "\n".join(lines)
