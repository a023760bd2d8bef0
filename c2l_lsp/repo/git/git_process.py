"""Running git so that nothing a repository configures is executed, nothing is fetched and nothing is written.

Fixed argument lists, never a shell. The user's own configuration stays in force (safe.directory lives there), options
that would change what git prints or run a program are overridden on the command line.
"""

from __future__ import annotations

import functools
import os
import re
import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from c2l_lsp.errors import GitError

TIMEOUT_S = 60.0

_SAFE = (
    "--no-pager", "--no-replace-objects", "--literal-pathspecs",
    "-c", "core.fsmonitor=",  # a program that any reading command would start
    "-c", f"core.hooksPath={os.devnull}",
    "-c", "diff.external=",
    "-c", "log.showSignature=false",  # starts gpg.program
    "-c", "core.quotePath=true",
    "-c", "core.abbrev=auto",
    "-c", "diff.suppressBlankEmpty=false",
    "-c", "submodule.recurse=false",
)  # fmt: skip
_ENVIRONMENT = {
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_OPTIONAL_LOCKS": "0",
    # A partial clone would fetch what it lacks. This overrides every protocol.*.allow; git before 2.44 needs it.
    "GIT_ALLOW_PROTOCOL": "none",
    "GIT_NO_LAZY_FETCH": "1",
    "LC_ALL": "C",
}
_NO_WINDOW: int = getattr(subprocess, "CREATE_NO_WINDOW", 0)
_REVISION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/@{}^~-]{0,250}")


class NoRepository(GitError):
    """The folder is in no git repository."""


class NoCommit(GitError):
    """The revision does not exist here, or there is no commit yet."""


def run(root: Path, *args: str, stdin: bytes = b"") -> bytes:
    """git's output. Raises GitError with git's reason, or when it takes longer than TIMEOUT_S."""
    try:
        done = subprocess.run(
            _command(args),
            cwd=root,
            env=_environment(),
            input=stdin,
            capture_output=True,
            timeout=TIMEOUT_S,
            check=False,
            creationflags=_NO_WINDOW,
        )
    except subprocess.TimeoutExpired as error:
        raise _too_slow(root) from error
    except OSError as error:
        raise _not_started(root, error) from error
    if done.returncode != 0:
        raise _failure(root, done.stderr)
    return done.stdout


def lines(root: Path, *args: str) -> Iterator[bytes]:
    """git's output line by line, line ends kept, without holding all of it. Errors as in `run`."""
    # A file takes git's messages: a pipe that nobody empties while stdout is read could fill and block git.
    with tempfile.TemporaryFile() as errors:
        try:
            process = subprocess.Popen(
                _command(args),
                cwd=root,
                env=_environment(),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=errors,
                creationflags=_NO_WINDOW,
            )
        except OSError as error:
            raise _not_started(root, error) from error
        deadline = time.monotonic() + TIMEOUT_S
        clock = threading.Timer(TIMEOUT_S, process.kill)
        clock.daemon = True
        clock.start()
        try:
            with process:  # closes the pipe and waits; a caller that stops early makes git end by the broken pipe
                if process.stdout is not None:
                    yield from process.stdout
        finally:
            clock.cancel()
        if time.monotonic() >= deadline:
            raise _too_slow(root)
        if process.returncode != 0:
            errors.seek(0)
            raise _failure(root, errors.read(10_000))


def revision(name: str) -> str:
    """`name` when it is a plain revision, which git cannot take for an option. Raises GitError otherwise."""
    if not _REVISION.fullmatch(name):
        raise GitError(f"{name!r} is not a git revision.")
    return name


def _failure(root: Path, errors: bytes) -> GitError:
    """What git wrote, as a sentence that a user can act on."""
    text = errors.decode("utf-8", "replace")
    if "not a git repository" in text:
        return NoRepository(f"{root} is not a git repository; its history cannot be used.")
    if "dubious ownership" in text:
        return GitError(
            f"git refuses {root} because another user owns it; "
            f"run `git config --global --add safe.directory {root}` if you trust it."
        )
    if re.search(r"unknown revision|bad revision|ambiguous argument|bad object|Needed a single revision", text):
        return NoCommit(f"{root} has no such commit; it may have no commits yet or be a shallow clone.")
    last = text.strip().rsplit("\n", 1)[-1].removeprefix("fatal: ")[:200]
    return GitError(f"git failed in {root}: {last or 'it ended without a message'}.")


def _too_slow(root: Path) -> GitError:
    return GitError(f"git took more than {TIMEOUT_S:.0f} s in {root} and was stopped.")


def _not_started(root: Path, error: OSError) -> GitError:
    return GitError(f"git cannot be started in {root}: {error.strerror or error}.")


def _command(args: tuple[str, ...]) -> list[str]:
    return [_executable(), *_SAFE, *args]


@functools.cache
def _executable() -> str:
    # Absolute only: Windows would look for git.exe in the current folder first, which is the repository's.
    found = shutil.which("git")
    if found is None or not Path(found).is_absolute():
        raise GitError("git was not found on PATH; install it, or turn c2l.adapter.useGitHistory off.")
    return found


def _environment() -> dict[str, str]:
    """The user's environment without what a caller's git, hook or trace left in it."""
    inherited = {key: value for key, value in os.environ.items() if not key.startswith("GIT_") or key in _KEPT}
    return inherited | _ENVIRONMENT


_KEPT = frozenset({"GIT_CONFIG_GLOBAL", "GIT_EXEC_PATH"})
"""Both belong to the user's installation, not to a repository."""
