"""The file filter: which files of a folder may be read, and the only way to read one for the engine.

Everything that is indexed, prompted, diffed or logged is read through `FileFilter`. It fails closed: a file that
cannot be judged (an unreadable ignore file, a malformed name, a link, bytes that are not text) is excluded. It never
follows a link, never blocks on a special file and never reads more than files.maxSizeKb of a file.
"""

from __future__ import annotations

from c2l_lsp import regular_files
from c2l_lsp.cooperative import Slices, drain
from c2l_lsp.repo.filter import reading
from c2l_lsp.repo.filter.paths import PathFilter
from c2l_lsp.repo.filter.plain_text import Refusal
from c2l_lsp.repo.filter.reading import FileText

__all__ = ["FileFilter", "FileText", "Refusal"]


class FileFilter(PathFilter):
    """The path rules of one folder, and the texts that they and the content rules admit."""

    # --- reading ---------------------------------------------------------------------------------------------------

    def read(self, path: str) -> FileText | None:
        """Return the redacted text of an included file; None if it is refused. Never raises because of a file."""
        found = self.try_read(path)
        return found if isinstance(found, FileText) else None

    def read_in_slices(self, path: str) -> Slices[FileText | None]:
        """As `read`, in cooperative steps."""
        found = yield from self._try_read(path)
        return found if isinstance(found, FileText) else None

    def try_read(self, path: str) -> FileText | Refusal:
        """As `read`, but return the reason of a refusal."""
        return drain(self._try_read(path))

    def _try_read(self, path: str) -> Slices[FileText | Refusal]:
        if not self.includes(path):
            return Refusal.EXCLUDED
        return (yield from reading.read_text_in_slices(self.root, path, self._limit))

    def check_text(self, path: str, text: str) -> FileText | None:
        """As `check_text_in_slices`, at once."""
        return drain(self.check_text_in_slices(path, text))

    def check_text_in_slices(self, path: str, text: str) -> Slices[FileText | None]:
        """Apply all rules to the text of an unsaved buffer or an old revision; None if they refuse it.

        `mtime_ns` of the result is 0. A path that passes through a link is refused as well.
        """
        if not self.includes(path) or regular_files.passes_through_link(self.root, path):
            return None
        try:
            data = text.encode("utf-8")
        except UnicodeEncodeError:
            return None
        if len(data) > self._limit:
            return None
        found = yield from reading.check_bytes_in_slices(data, 0)
        return found if isinstance(found, FileText) else None
