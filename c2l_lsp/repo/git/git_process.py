"""Running git without executing what a repository configures, without fetching and without writing.

Commands are argument lists, never shell strings. The user's own configuration stays in force, because safe.directory
is set there. Options that would start a program or change git's output are overridden on the command line.
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
from typing import Literal

from c2l_lsp.errors import GitError

TIMEOUT_S = 60.0

_SAFE = (
    "--no-pager", "--no-replace-objects", "--literal-pathspecs",
    "-c", "core.fsmonitor=",  # a program that every reading command would start
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
    # A partial clone would fetch missing objects. This overrides every protocol.*.allow; git before 2.44 needs it.
    "GIT_ALLOW_PROTOCOL": "none",
    "GIT_NO_LAZY_FETCH": "1",
    "LC_ALL": "C",
}
_NO_WINDOW: int = getattr(subprocess, "CREATE_NO_WINDOW", 0)
_REVISION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/@{}^~-]{0,250}")


class GitMissing(GitError):
    """git is not installed."""


class NoRepository(GitError):
    """The folder is in no git repository."""


class NoCommit(GitError):
    """The revision does not exist, or the repository has no commit yet."""


def run(root: Path, *args: str, stdin: bytes = b"", timeout_s: float = TIMEOUT_S) -> bytes:
    """Return git's output. Raises GitError if git fails or takes longer than `timeout_s`."""
    completed = _complete(root, args, _environment(), stdin, timeout_s)
    if completed.returncode != 0:
        raise _failure(root, completed.stderr)
    return completed.stdout


def config(root: Path, key: str, kind: Literal["path", "bool"]) -> bytes | None:
    """Return the value of a configuration key that git uses in `root`; None if it is unset.

    Raises GitMissing if git is not installed, GitError if git cannot read the configuration.
    """
    completed = _read_config(root, f"--type={kind}", "--get", key)
    if completed.returncode == _UNSET:
        return None
    if completed.returncode != 0:
        raise _failure(root, completed.stderr)
    return completed.stdout.removesuffix(b"\0")


def config_keys(root: Path) -> Iterator[tuple[Path, str]]:
    """Yield (file, key in lower case) for every entry of the configuration that git uses in `root`.

    Raises as `config` does.
    """
    completed = _read_config(root, "--show-origin", "--name-only", "--list")
    if completed.returncode != 0:
        raise _failure(root, completed.stderr)
    fields = completed.stdout.split(b"\0")
    for origin, key in zip(fields[::2], fields[1::2], strict=False):
        yield root / os.fsdecode(origin.removeprefix(b"file:")), key.decode("utf-8", "replace").lower()


def _read_config(root: Path, *options: str) -> subprocess.CompletedProcess[bytes]:
    """Run `git config`. Unlike other commands, it also reads the system's configuration; with all includes, reading
    executes nothing."""
    inherited = {key: value for key, value in os.environ.items() if key in _SYSTEM_CONFIG}
    environment = _environment()
    del environment["GIT_CONFIG_NOSYSTEM"]
    return _complete(root, ("config", "-z", *options), environment | inherited, b"")


def _complete(
    root: Path, args: tuple[str, ...], environment: dict[str, str], stdin: bytes, timeout_s: float = TIMEOUT_S
) -> subprocess.CompletedProcess[bytes]:
    try:
        return subprocess.run(
            _command(args),
            cwd=root,
            env=environment,
            input=stdin,
            capture_output=True,
            timeout=timeout_s,
            check=False,
            creationflags=_NO_WINDOW,
        )
    except subprocess.TimeoutExpired as error:
        raise _too_slow(root, timeout_s) from error
    except OSError as error:
        raise _not_started(root, error) from error


def lines(root: Path, *args: str) -> Iterator[bytes]:
    """Yield git's output line by line, with line ends, without storing all of it. Raises GitError as `run` does."""
    # stderr goes to a file: nothing reads a pipe while stdout is read, so that a full one would block git.
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
        timer = threading.Timer(TIMEOUT_S, process.kill)
        timer.daemon = True
        timer.start()
        try:
            with process:  # closes the pipe and waits; if the caller stops early, git ends with SIGPIPE
                if process.stdout is not None:
                    yield from process.stdout
        finally:
            timer.cancel()
        if time.monotonic() >= deadline:
            raise _too_slow(root)
        if process.returncode != 0:
            errors.seek(0)
            raise _failure(root, errors.read(10_000))


def revision(name: str) -> str:
    """Return `name` if it has the form of a revision that git cannot parse as an option; else raise GitError."""
    if not _REVISION.fullmatch(name):
        raise GitError(f"{name!r} is not a git revision.")
    return name


def _failure(root: Path, errors: bytes) -> GitError:
    """Return an error with a message that a user can act on, made from git's stderr."""
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
    return GitError(f"git failed in {root}: {last or 'no error message'}.")


def _too_slow(root: Path, timeout_s: float = TIMEOUT_S) -> GitError:
    return GitError(f"git took more than {timeout_s:.0f} s in {root} and was stopped.")


def _not_started(root: Path, error: OSError) -> GitError:
    return GitError(f"git cannot be started in {root}: {error.strerror or error}.")


def _command(args: tuple[str, ...]) -> list[str]:
    return [_executable(), *_SAFE, *args]


@functools.cache
def _executable() -> str:
    # Only an absolute path: Windows looks for git.exe in the current directory first, which is the repository.
    found = shutil.which("git")
    if found is None or not Path(found).is_absolute():
        raise GitMissing("git was not found on PATH; install it, or turn c2l.adapter.useGitHistory off.")
    return found


def _environment() -> dict[str, str]:
    """Return the user's environment without the GIT_* variables that a calling git, hook or trace may have set."""
    inherited = {key: value for key, value in os.environ.items() if not key.startswith("GIT_") or key in _INHERITED}
    return inherited | _ENVIRONMENT


_INHERITED = frozenset({"GIT_CONFIG_GLOBAL", "GIT_EXEC_PATH"})
"""Variables that describe the user's installation, not a repository."""
_SYSTEM_CONFIG = frozenset({"GIT_CONFIG_SYSTEM", "GIT_CONFIG_NOSYSTEM"})
_UNSET = 1  # exit code of `git config --get`
