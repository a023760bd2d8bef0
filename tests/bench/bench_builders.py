"""Text and repositories that the benchmark's tests are made of."""

from __future__ import annotations


def module(name: str, salt: int = 0, count: int = 6) -> str:
    """A little Python module that is unlike those of other names."""
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
