"""Work in slices: a generator that yields wherever something more urgent may come in, and returns its result."""

from __future__ import annotations

from collections.abc import Generator
from typing import TypeVar

T = TypeVar("T")

Slices = Generator[None, None, T]


def drained(work: Slices[T]) -> T:
    """All of it in one go."""
    while True:
        try:
            next(work)
        except StopIteration as end:
            result: T = end.value
            return result
