"""Cooperative steps: long work is a generator that yields between steps, so that more urgent work can run there."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Generator
from concurrent.futures import Future
from concurrent.futures import TimeoutError as NotDone
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


_WAIT_S = 0.01  # of one step that only waits


def in_background(function: Callable[[], T]) -> Slices[T]:
    """The result of a function that runs in a thread of its own and mostly without the interpreter lock.

    Its exception is raised here. If the steps are abandoned, the thread ends by itself and its result is dropped.
    """
    found: Future[T] = Future()

    def run() -> None:
        try:
            found.set_result(function())
        except BaseException as error:
            found.set_exception(error)

    threading.Thread(target=run, name="c2l-background", daemon=True).start()
    while True:
        try:
            return found.result(timeout=_WAIT_S)
        except NotDone:
            if found.done():  # the function itself raised a TimeoutError
                raise
            yield


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
