"""Detection of remote file systems. These cannot be watched: the local kernel does not see changes by other hosts."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable
from pathlib import Path

_REMOTE = ("nfs", "cifs", "smb", "9p", "afs", "ceph", "glusterfs", "lustre", "vboxsf", "virtiofs", "drvfs", "fuse.")
_LOCAL = ("fuse.fuse-overlayfs", "fuse.mergerfs")
_OCTAL = re.compile(r"\\([0-7]{3})")


def is_remote(path: str) -> bool:
    """Return whether a resolved path is on a network drive or in a folder shared with another system."""
    if sys.platform == "win32":
        return path.startswith("\\\\")
    try:
        with Path("/proc/self/mountinfo").open(encoding="utf-8", errors="surrogateescape") as mounts:
            kind = file_system_type(mounts, path)
    except OSError:
        return False
    return kind.startswith(_REMOTE) and kind not in _LOCAL


def file_system_type(mounts: Iterable[str], path: str) -> str:
    """Return the type of the deepest mount that contains `path`. `mounts` are lines of mountinfo; see proc(5)."""
    deepest, kind = "", ""
    for line in mounts:
        fields, _, rest = line.partition(" - ")
        point = _OCTAL.sub(lambda match: chr(int(match[1], 8)), fields.split(" ")[4])
        inside = path == point or path.startswith(point.rstrip("/") + "/")
        if inside and len(point) >= len(deepest):
            deepest, kind = point, rest.split(" ")[0]
    return kind
