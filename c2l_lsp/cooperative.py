"""Cooperative steps: long work is a generator that yields between steps, so that more urgent work can run there."""

from __future__ import annotations

import time
from collections.abc import Generator
from typing import TypeVar

T = TypeVar("T")

Slices = Generator[None, None, T]
"""Work in steps of some 20 ms; the generator's return value is the result."""


def drain(work: Slices[T]) -> T:
    """Run all steps without a pause and return the result."""
    while True:
        try:
            next(work)
        except StopIteration as end:
            result: T = end.value
            return result


def timed(work: Slices[T]) -> Slices[tuple[T, list[float]]]:
    """The result of the work, and the duration of each of its steps in seconds."""
    seconds: list[float] = []
    while True:
        began = time.perf_counter()
        try:
            next(work)
        except StopIteration as end:
            return end.value, [*seconds, time.perf_counter() - began]
        seconds.append(time.perf_counter() - began)
        yield
