"""Temporary folders and git repositories."""

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path


def write(root: Path, files: Mapping[str, str | bytes | None]) -> None:
    """Write files and create their folders; delete a file whose content is None."""
    for name, content in files.items():
        path = root / name
        if content is None:
            path.unlink()
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())


class GitRepo:
    """A git repository with a fixed author and a clock that advances a minute per command."""

    def __init__(self, root: Path, *init: str) -> None:
        self.root = root
        self.clock = 1_700_000_000
        root.mkdir(parents=True)
        self.git("init", "-q", "-b", "main", *init)

    def git(self, *args: str, cwd: Path | None = None) -> str:
        """Run git and return its output, stripped. Fails if git fails."""
        self.clock += 60
        date = f"{self.clock} +0000"
        env = {**os.environ, "GIT_AUTHOR_DATE": date, "GIT_COMMITTER_DATE": date}
        for role in ("AUTHOR", "COMMITTER"):
            env |= {f"GIT_{role}_NAME": "Test", f"GIT_{role}_EMAIL": "test@example.invalid"}
        done = subprocess.run(["git", *args], cwd=cwd or self.root, env=env, capture_output=True, check=False)
        assert done.returncode == 0, done.stderr.decode()
        return done.stdout.decode().strip()

    def commit(self, files: Mapping[str, str | bytes | None] | None = None) -> str:
        """Apply `files` as `write` does, commit everything, and return the commit."""
        write(self.root, files or {})
        self.git("add", "-A")
        self.git("commit", "-q", "--allow-empty", "-m", "change")
        return self.git("rev-parse", "HEAD")
