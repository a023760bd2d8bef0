"""Which file systems cannot be watched: others may write to them without the kernel here knowing."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable
from pathlib import Path

_REMOTE = ("nfs", "cifs", "smb", "9p", "afs", "ceph", "glusterfs", "lustre", "vboxsf", "virtiofs", "drvfs", "fuse.")
_LOCAL = ("fuse.fuse-overlayfs", "fuse.mergerfs")
_OCTAL = re.compile(r"\\([0-7]{3})")


def is_remote(path: str) -> bool:
    """Whether a resolved path lies on a network drive or a folder shared with another system."""
    if sys.platform == "win32":
        return path.startswith("\\\\")
    try:
        with Path("/proc/self/mountinfo").open(encoding="utf-8", errors="surrogateescape") as mounts:
            kind = file_system(mounts, path)
    except OSError:
        return False
    return kind.startswith(_REMOTE) and kind not in _LOCAL


def file_system(mounts: Iterable[str], path: str) -> str:
    """The type of the deepest mount that holds `path`, from lines in the form of proc(5) mountinfo."""
    deepest, kind = "", ""
    for line in mounts:
        about, _, rest = line.partition(" - ")
        point = _OCTAL.sub(lambda match: chr(int(match[1], 8)), about.split(" ")[4])
        inside = path == point or path.startswith(point.rstrip("/") + "/")
        if inside and len(point) >= len(deepest):
            deepest, kind = point, rest.split(" ")[0]
    return kind
