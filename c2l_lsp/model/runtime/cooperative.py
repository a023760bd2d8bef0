"""Work in slices: a generator that yields wherever something more urgent may come in, and returns its result."""

from __future__ import annotations

import time
from collections.abc import Generator
from typing import TypeVar

T = TypeVar("T")

Slices = Generator[None, None, T]


def drain(work: Slices[T]) -> T:
    """All of it in one go."""
    while True:
        try:
            next(work)
        except StopIteration as end:
            result: T = end.value
            return result


def timed(work: Slices[T]) -> Slices[tuple[T, list[float]]]:
    """What work gives, and the seconds that each of its slices took."""
    spent: list[float] = []
    while True:
        began = time.perf_counter()
        try:
            next(work)
        except StopIteration as end:
            return end.value, [*spent, time.perf_counter() - began]
        spent.append(time.perf_counter() - began)
        yield
