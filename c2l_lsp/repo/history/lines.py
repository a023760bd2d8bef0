"""The line matching of a diff: Myers' algorithm, then git's indent heuristic.

The result must look like `git diff`, because the models were trained on git's diffs. Sources: E. Myers, "An O(ND)
Difference Algorithm and Its Variations" (1986), in its linear-space variant, and the documented rules of git's
`--indent-heuristic`.

Coordinates are Myers': x counts lines of the old file, y of the new one, and diagonal k is x − y. A snake is a run of
equal lines along a diagonal.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

_MIN_COST_LIMIT = 256
"""Least number of edits after which the search for a shortest path stops and takes the furthest point reached."""
_NEIGHBOURHOOD = 100
"""Lines on each side that decide whether a frequent line is compared."""

# Limits and weights of the indent heuristic, as in git.
_MAX_SLIDE = 100
_MAX_BLANKS = 20
_MAX_INDENT = 200
_INDENT_WEIGHT = 60
_FILE_START_PENALTY = 1
_FILE_END_PENALTY = 21
_BLANK_WEIGHT = -30
_BLANK_AFTER_WEIGHT = 6


def changed_lines(old: Sequence[bytes], new: Sequence[bytes]) -> tuple[list[bool], list[bool]]:
    """Return, for each line of each file, whether it is changed (deleted or inserted)."""
    old_changed, new_changed = [True] * len(old), [True] * len(new)
    start, end = _common_ends(old, new)
    for changed in (old_changed, new_changed):
        changed[:start] = [False] * start
        changed[len(changed) - end :] = [False] * end
    old_kept, new_kept = _lines_to_compare(old, new, start, end), _lines_to_compare(new, old, start, end)
    for i, j in _matching_lines([old[i] for i in old_kept], [new[j] for j in new_kept]):
        old_changed[old_kept[i]] = new_changed[new_kept[j]] = False
    _slide_groups(old, old_changed, new_changed)
    _slide_groups(new, new_changed, old_changed)
    return old_changed, new_changed


def _common_ends(a: Sequence[bytes], b: Sequence[bytes]) -> tuple[int, int]:
    """Return the lengths of the common prefix and suffix."""
    shorter = min(len(a), len(b))
    start = 0
    while start < shorter and a[start] == b[start]:
        start += 1
    end = 0
    while end < shorter - start and a[-1 - end] == b[-1 - end]:
        end += 1
    return start, end


_UNMATCHED, _RARE, _FREQUENT = range(3)


def _lines_to_compare(lines: Sequence[bytes], others: Sequence[bytes], start: int, end: int) -> list[int]:
    """Return the indices of lines that Myers' algorithm compares.

    Lines that do not occur in the other file are skipped, and so are frequent lines surrounded by such lines.
    """
    count = Counter(others)
    frequent = _approximate_sqrt(len(lines))
    kinds = [
        _UNMATCHED if not count[line] else _FREQUENT if count[line] >= frequent else _RARE
        for line in lines[start : len(lines) - end]
    ]
    return [
        start + i
        for i, kind in enumerate(kinds)
        if kind == _RARE or (kind == _FREQUENT and not _is_amid_unmatched(kinds, i))
    ]


def _is_amid_unmatched(kinds: list[int], at: int) -> bool:
    """Return whether unmatched lines stand on both sides of a frequent line and make up over three quarters there."""
    unmatched = frequent = 0
    before = range(at - 1, max(-1, at - _NEIGHBOURHOOD - 1), -1)
    after = range(at + 1, min(len(kinds), at + _NEIGHBOURHOOD + 1))
    for side in (before, after):
        found = 0
        frequent += 1
        for i in side:
            if kinds[i] == _RARE:
                break
            found += kinds[i] == _UNMATCHED
            frequent += kinds[i] == _FREQUENT
        if not found:
            return False
        unmatched += found
    return frequent * 4 < frequent + unmatched


def _approximate_sqrt(n: int) -> int:
    """Return a power of two near the square root of n."""
    root = 1
    while n > 0:
        root *= 2
        n >>= 2
    return root


# --- Myers 1986, linear space --------------------------------------------------------------------------------------


def _matching_lines(a: list[bytes], b: list[bytes]) -> list[tuple[int, int]]:
    """Return the index pairs of matching lines, in no particular order."""
    pairs = []
    boxes = [(0, len(a), 0, len(b))]
    while boxes:
        a0, a1, b0, b1 = boxes.pop()
        while a0 < a1 and b0 < b1 and a[a0] == b[b0]:
            pairs.append((a0, b0))
            a0, b0 = a0 + 1, b0 + 1
        while a0 < a1 and b0 < b1 and a[a1 - 1] == b[b1 - 1]:
            a1, b1 = a1 - 1, b1 - 1
            pairs.append((a1, b1))
        if a0 < a1 and b0 < b1:
            x, y = _split_point(a, b, (a0, a1, b0, b1))
            boxes += [(a0, x, b0, y), (x, a1, y, b1)]
    return pairs


def _split_point(a: list[bytes], b: list[bytes], box: tuple[int, int, int, int]) -> tuple[int, int]:
    """Return a point on a shortest edit path through the box, found by searching from both corners.

    `forward[k]` and `backward[k]` are the furthest-reaching x on diagonal k from the top left and the bottom right.
    Where the two searches overlap is the middle snake. After too many edits the furthest point reached is returned.
    """
    a0, a1, b0, b1 = box
    lowest, highest = a0 - b1, a1 - b0
    first, last = a0 - b0, a1 - b1
    odd = (first - last) % 2 != 0
    forward, backward = {first: a0}, {last: a1}
    f_low = f_high = first
    b_low = b_high = last
    limit = max(_MIN_COST_LIMIT, _approximate_sqrt(highest - lowest + 3))
    for cost in range(1, a1 - a0 + b1 - b0 + 2):
        f_low, f_high = _extend_diagonals(f_low, f_high, lowest, highest, forward, -1)
        for k in range(f_high, f_low - 1, -2):
            x = forward[k - 1] + 1 if forward[k - 1] >= forward[k + 1] else forward[k + 1]
            while x < a1 and x - k < b1 and a[x] == b[x - k]:
                x += 1
            forward[k] = x
            if odd and b_low <= k <= b_high and backward[k] <= x:
                return x, x - k
        b_low, b_high = _extend_diagonals(b_low, b_high, lowest, highest, backward, 1 << 60)
        for k in range(b_high, b_low - 1, -2):
            x = backward[k - 1] if backward[k - 1] < backward[k + 1] else backward[k + 1] - 1
            while x > a0 and x - k > b0 and a[x - 1] == b[x - k - 1]:
                x -= 1
            backward[k] = x
            if not odd and f_low <= k <= f_high and x <= forward[k]:
                return x, x - k
        if cost >= limit:
            break
    return _furthest_point(
        box, {k: forward[k] for k in range(f_low, f_high + 1, 2)}, {k: backward[k] for k in range(b_low, b_high + 1, 2)}
    )


def _extend_diagonals(
    low: int, high: int, lowest: int, highest: int, reach: dict[int, int], unreachable: int
) -> tuple[int, int]:
    """Return the range of diagonals for the next edit. The diagonals just outside it get the unreachable value."""
    if low > lowest:
        low -= 1
        reach[low - 1] = unreachable
    else:
        low += 1
    if high < highest:
        high += 1
        reach[high + 1] = unreachable
    else:
        high -= 1
    return low, high


def _furthest_point(
    box: tuple[int, int, int, int], forward: dict[int, int], backward: dict[int, int]
) -> tuple[int, int]:
    """Return the point with the most progress from its own corner."""
    a0, a1, b0, b1 = box
    forward_ends = [(min(x, a1, b1 + k), k) for k, x in forward.items()]
    x, k = max(forward_ends, key=lambda point: 2 * point[0] - point[1])
    backward_ends = [(max(x, a0, b0 + k), k) for k, x in backward.items()]
    u, q = min(backward_ends, key=lambda point: 2 * point[0] - point[1])
    return (u, u - q) if a1 + b1 - (2 * u - q) >= 2 * x - k - (a0 + b0) else (x, x - k)


# --- indent heuristic ----------------------------------------------------------------------------------------------


def _slide_groups(lines: Sequence[bytes], changed: list[bool], other: list[bool]) -> None:
    """Slide each group of changed lines to the best of its equivalent positions, as git does.

    A group can slide by one line if the line that it would include at one end equals the line that it would drop at
    the other. If a position aligns it with a change of the other file, it goes there; otherwise to the position with
    the best indentation score.
    """
    group = _Group(lines, changed, other)
    while group.advance():
        size = group.end - group.start
        while True:
            while group.slide_up():
                pass
            earliest = group.end
            aligned = group.end if group.is_aligned() else -1
            while group.slide_down():
                if group.is_aligned():
                    aligned = group.end
            if group.end - group.start == size:
                break
            size = group.end - group.start  # the group merged with another one: slide the merged group
        if group.end == earliest:
            continue
        target = aligned if aligned >= 0 else _best_end(lines, earliest, group.end, size)
        while group.end > target:
            group.slide_up()


class _Group:
    """A group [start, end) of changed lines, and the corresponding group of the other file (possibly empty)."""

    def __init__(self, lines: Sequence[bytes], changed: list[bool], other: list[bool]) -> None:
        self.lines = lines
        self.changed = changed
        self.other = other
        self.start = self.end = -1
        self.other_start = self.other_end = -1

    def advance(self) -> bool:
        """Move to the next group that is not empty; return whether there is one."""
        while True:
            if self.end >= len(self.changed):
                return False
            self.start = self.end + 1
            self.end = _group_end(self.changed, self.start)
            self._advance_other()
            if self.end > self.start:
                return True

    def is_aligned(self) -> bool:
        """Return whether the other file has a change at this position."""
        return self.other_end > self.other_start

    def slide_up(self) -> bool:
        """Slide up by one line and merge with a group that it meets; return whether that was possible."""
        if self.start == 0 or self.lines[self.start - 1] != self.lines[self.end - 1]:
            return False
        self.start -= 1
        self.end -= 1
        self.changed[self.start], self.changed[self.end] = True, False
        self.start = _group_start(self.changed, self.start)
        self.other_end = self.other_start - 1
        self.other_start = _group_start(self.other, self.other_end)
        return True

    def slide_down(self) -> bool:
        """Slide down by one line and merge with a group that it meets; return whether that was possible."""
        if self.end >= len(self.lines) or self.lines[self.start] != self.lines[self.end]:
            return False
        self.changed[self.start], self.changed[self.end] = False, True
        self.start += 1
        self.end = _group_end(self.changed, self.end + 1)
        self._advance_other()
        return True

    def _advance_other(self) -> None:
        self.other_start = self.other_end + 1
        self.other_end = _group_end(self.other, self.other_start)


def _group_end(changed: list[bool], at: int) -> int:
    while at < len(changed) and changed[at]:
        at += 1
    return at


def _group_start(changed: list[bool], at: int) -> int:
    while at > 0 and changed[at - 1]:
        at -= 1
    return at


def _best_end(lines: Sequence[bytes], earliest: int, latest: int, size: int) -> int:
    """Return the best end, between `earliest` and `latest`, of a group of `size` lines; the later one on a tie."""
    best, best_end = None, latest
    for end in range(max(earliest, latest - size - 1, latest - _MAX_SLIDE), latest + 1):
        below, above = _score_split(lines, end), _score_split(lines, end - size)
        score = below[0] + above[0], below[1] + above[1]
        if best is None:
            best, best_end = score, end
            continue
        indent_order = (score[0] > best[0]) - (score[0] < best[0])
        if _INDENT_WEIGHT * indent_order + score[1] - best[1] <= 0:
            best, best_end = score, end
    return best_end


def _score_split(lines: Sequence[bytes], at: int) -> tuple[int, int]:
    """Return (indentation, penalty) of splitting the text before line `at`; less is better."""
    indent = _indent(lines[at]) if at < len(lines) else -1
    indent_before, blanks_before = _nearest_indent(lines, range(at - 1, -1, -1))
    indent_after, blanks_after = _nearest_indent(lines, range(at + 1, len(lines)))
    penalty = 0
    if indent_before == -1 and blanks_before == 0:
        penalty += _FILE_START_PENALTY
    if at >= len(lines):
        penalty += _FILE_END_PENALTY
    blanks_from_split = 1 + blanks_after if indent == -1 else 0
    blanks = blanks_before + blanks_from_split
    penalty += _BLANK_WEIGHT * blanks + _BLANK_AFTER_WEIGHT * blanks_from_split
    if indent == -1:
        indent = indent_after
    if indent != -1 and indent_before != -1:
        penalty += _relative_indent_penalty(indent, indent_before, indent_after, has_blank=blanks > 0)
    return indent, penalty


def _relative_indent_penalty(indent: int, before: int, after: int, *, has_blank: bool) -> int:
    if indent > before:  # starts a deeper block
        return 10 if has_blank else -4
    if indent == before:
        return 0
    if after > indent:  # a shallower line that starts a new block, such as `else:`
        return 17 if has_blank else 24
    return 17 if has_blank else 23


def _nearest_indent(lines: Sequence[bytes], indices: range) -> tuple[int, int]:
    """Return (indentation of the first line that is not blank, number of blank lines before it) along `indices`."""
    for blanks, i in enumerate(indices):
        if blanks == _MAX_BLANKS:
            return 0, blanks
        indent = _indent(lines[i])
        if indent != -1:
            return indent, blanks
    return -1, len(indices)


def _indent(line: bytes) -> int:
    """Return the columns before the first visible character, with tab stops every 8; −1 for a blank line."""
    column = 0
    for byte in line:
        if byte == 0x20:
            column += 1
        elif byte == 0x09:
            column += 8 - column % 8
        elif byte not in b"\n\v\f\r":
            return column
        if column >= _MAX_INDENT:
            return _MAX_INDENT
    return -1
