"""Which lines of two files correspond: Myers' O(ND) difference in linear space, then sliding each change to where git
would show it.

The point is that a diff made from two buffers reads like `git diff`, which is what the models were trained on. After
E. Myers, "An O(ND) Difference Algorithm and Its Variations" (1986), and the rules that git documents for its
`--indent-heuristic`. Works on lists of anything hashable; only the sliding looks into the lines.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

_COST_LIMIT = 256
"""Edits after which a stretch is split where the search got furthest, instead of where it is shortest."""
_SEEN_AROUND = 100
_LONGEST_SLIDE = 100
_MOST_BLANKS = 20
_DEEPEST = 200


def changed_lines(old: Sequence[bytes], new: Sequence[bytes]) -> tuple[list[bool], list[bool]]:
    """For each line of each file whether it is changed (deleted or inserted)."""
    marks = [True] * len(old), [True] * len(new)
    start, end = _common_ends(old, new)
    for side in marks:
        side[:start] = [False] * start
        side[len(side) - end :] = [False] * end
    kept = _comparable(old, new, start, end), _comparable(new, old, start, end)
    for i, j in _pairs([old[i] for i in kept[0]], [new[j] for j in kept[1]]):
        marks[0][kept[0][i]] = marks[1][kept[1][j]] = False
    _slide(old, marks[0], marks[1])
    _slide(new, marks[1], marks[0])
    return marks


def _common_ends(a: Sequence[bytes], b: Sequence[bytes]) -> tuple[int, int]:
    shorter = min(len(a), len(b))
    start = 0
    while start < shorter and a[start] == b[start]:
        start += 1
    end = 0
    while end < shorter - start and a[-1 - end] == b[-1 - end]:
        end += 1
    return start, end


def _comparable(lines: Sequence[bytes], others: Sequence[bytes], start: int, end: int) -> list[int]:
    """Indices worth comparing: not lines the other file lacks, and not very common lines in the midst of such."""
    count = Counter(others)
    common = _root(len(lines))
    kinds = [0 if not count[line] else 2 if count[line] >= common else 1 for line in lines[start : len(lines) - end]]
    kept = (i for i, kind in enumerate(kinds) if kind == 1 or (kind == 2 and not _in_the_midst(kinds, i)))
    return [start + i for i in kept]


def _in_the_midst(kinds: list[int], at: int) -> bool:
    """Whether a common line stands among lines the other file lacks, with these on both sides and prevailing."""
    lacking = common = 0
    before = range(at - 1, max(-1, at - _SEEN_AROUND - 1), -1)
    after = range(at + 1, min(len(kinds), at + _SEEN_AROUND + 1))
    for side in (before, after):
        found = 0
        common += 1
        for i in side:
            if kinds[i] == 1:
                break
            found += kinds[i] == 0
            common += kinds[i] == 2
        if not found:
            return False
        lacking += found
    return common * 4 < common + lacking


def _root(n: int) -> int:
    """A power of two near the square root of n."""
    root = 1
    while n > 0:
        root *= 2
        n >>= 2
    return root


# --- Myers -------------------------------------------------------------------------------------------------------


def _pairs(a: list[bytes], b: list[bytes]) -> list[tuple[int, int]]:
    """Indices of the lines that correspond, in no order."""
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
            x, y = _middle(a, b, (a0, a1, b0, b1))
            boxes += [(a0, x, b0, y), (x, a1, y, b1)]
    return pairs


def _middle(a: list[bytes], b: list[bytes], box: tuple[int, int, int, int]) -> tuple[int, int]:
    """A point on a shortest path through the box, found from both corners at once.

    `ahead[k]` and `back[k]` are the furthest x on diagonal k = x − y reached from the top left and bottom right.
    """
    a0, a1, b0, b1 = box
    lowest, highest = a0 - b1, a1 - b0
    first, last = a0 - b0, a1 - b1
    odd = (first - last) % 2 != 0
    ahead, back = {first: a0}, {last: a1}
    f_low = f_high = first
    b_low = b_high = last
    limit = max(_COST_LIMIT, _root(highest - lowest + 3))
    for cost in range(1, a1 - a0 + b1 - b0 + 2):
        f_low, f_high = _widened(f_low, f_high, lowest, highest, ahead, -1)
        for k in range(f_high, f_low - 1, -2):
            x = ahead[k - 1] + 1 if ahead[k - 1] >= ahead[k + 1] else ahead[k + 1]
            while x < a1 and x - k < b1 and a[x] == b[x - k]:
                x += 1
            ahead[k] = x
            if odd and b_low <= k <= b_high and back[k] <= x:
                return x, x - k
        b_low, b_high = _widened(b_low, b_high, lowest, highest, back, 1 << 60)
        for k in range(b_high, b_low - 1, -2):
            x = back[k - 1] if back[k - 1] < back[k + 1] else back[k + 1] - 1
            while x > a0 and x - k > b0 and a[x - 1] == b[x - k - 1]:
                x -= 1
            back[k] = x
            if not odd and f_low <= k <= f_high and x <= ahead[k]:
                return x, x - k
        if cost >= limit:
            break
    return _furthest(
        box, {k: ahead[k] for k in range(f_low, f_high + 1, 2)}, {k: back[k] for k in range(b_low, b_high + 1, 2)}
    )


def _widened(low: int, high: int, lowest: int, highest: int, reach: dict[int, int], never: int) -> tuple[int, int]:
    """The diagonals of the next round; outside of them, and outside of the box, nothing is ever the furthest."""
    if low > lowest:
        low -= 1
        reach[low - 1] = never
    else:
        low += 1
    if high < highest:
        high += 1
        reach[high + 1] = never
    else:
        high -= 1
    return low, high


def _furthest(box: tuple[int, int, int, int], ahead: dict[int, int], back: dict[int, int]) -> tuple[int, int]:
    a0, a1, b0, b1 = box
    forward = [(min(x, a1, b1 + k), k) for k, x in ahead.items()]
    x, k = max(forward, key=lambda point: 2 * point[0] - point[1])
    backward = [(max(x, a0, b0 + k), k) for k, x in back.items()]
    u, q = min(backward, key=lambda point: 2 * point[0] - point[1])
    return (u, u - q) if a1 + b1 - (2 * u - q) >= 2 * x - k - (a0 + b0) else (x, x - k)


# --- sliding -----------------------------------------------------------------------------------------------------


def _slide(lines: Sequence[bytes], marks: list[bool], other: list[bool]) -> None:
    """Move each run of changed lines to the best of the places where it means the same.

    A run can move when the line that it takes in at one end equals the one that it leaves at the other. Where a run
    can stand next to a change of the other file it does; else the indentation decides.
    """
    run = _Run(lines, marks, other)
    while run.forward():
        size = run.end - run.start
        while True:
            while run.up():
                pass
            earliest = run.end
            beside = run.end if run.has_other() else -1
            while run.down():
                if run.has_other():
                    beside = run.end
            if run.end - run.start == size:
                break
            size = run.end - run.start  # it met another run: again, as one
        if run.end == earliest:
            continue
        target = beside if beside >= 0 else _best_end(lines, earliest, run.end, size)
        while run.end > target:
            run.up()


class _Run:
    """A run of changed lines that can move, and the place in the other file that it stands opposite to."""

    def __init__(self, lines: Sequence[bytes], marks: list[bool], other: list[bool]) -> None:
        self.lines = lines
        self.marks = marks
        self.other = other
        self.start = self.end = -1
        self.o_start = self.o_end = -1

    def forward(self) -> bool:
        """Go to the next run that is not empty."""
        while True:
            if self.end >= len(self.marks):
                return False
            self.start = self.end + 1
            self.end = _run_end(self.marks, self.start)
            self._other_forward()
            if self.end > self.start:
                return True

    def has_other(self) -> bool:
        return self.o_end > self.o_start

    def up(self) -> bool:
        if self.start == 0 or self.lines[self.start - 1] != self.lines[self.end - 1]:
            return False
        self.start -= 1
        self.end -= 1
        self.marks[self.start], self.marks[self.end] = True, False
        while self.start > 0 and self.marks[self.start - 1]:
            self.start -= 1
        self.o_end = self.o_start - 1
        self.o_start = _run_start(self.other, self.o_end)
        return True

    def down(self) -> bool:
        if self.end >= len(self.lines) or self.lines[self.start] != self.lines[self.end]:
            return False
        self.marks[self.start], self.marks[self.end] = False, True
        self.start += 1
        self.end = _run_end(self.marks, self.end + 1)
        self._other_forward()
        return True

    def _other_forward(self) -> None:
        self.o_start = self.o_end + 1
        self.o_end = _run_end(self.other, self.o_start)


def _run_end(marks: list[bool], at: int) -> int:
    while at < len(marks) and marks[at]:
        at += 1
    return at


def _run_start(marks: list[bool], at: int) -> int:
    while at > 0 and marks[at - 1]:
        at -= 1
    return at


def _best_end(lines: Sequence[bytes], earliest: int, latest: int, size: int) -> int:
    """Where a run of `size` lines that may end anywhere from `earliest` to `latest` reads best; the later of equals."""
    best, best_end = None, latest
    for end in range(max(earliest, latest - size - 1, latest - _LONGEST_SLIDE), latest + 1):
        below, above = _split(lines, end), _split(lines, end - size)
        score = below[0] + above[0], below[1] + above[1]
        if best is None or 60 * ((score[0] > best[0]) - (score[0] < best[0])) + score[1] - best[1] <= 0:
            best, best_end = score, end
    return best_end


def _split(lines: Sequence[bytes], at: int) -> tuple[int, int]:
    """(indentation, penalty) of a border before line `at`. The weights are those git documents."""
    indent = _indent(lines[at]) if at < len(lines) else -1
    before, blanks_before = _neighbour(lines, range(at - 1, -1, -1))
    after, blanks_after = _neighbour(lines, range(at + 1, len(lines)))
    penalty = (before == -1 and blanks_before == 0) * 1 + (at >= len(lines)) * 21
    own_blanks = 1 + blanks_after if indent == -1 else 0
    blanks = blanks_before + own_blanks
    penalty += -30 * blanks + 6 * own_blanks
    if indent == -1:
        indent = after
    if indent != -1 and before != -1:
        if indent > before:
            penalty += 10 if blanks else -4
        elif indent < before and after > indent:
            penalty += 17 if blanks else 24
        elif indent < before:
            penalty += 17 if blanks else 23
    return indent, penalty


def _neighbour(lines: Sequence[bytes], way: range) -> tuple[int, int]:
    """(indentation of the first line that is not blank, blank lines before it) in a direction."""
    for blanks, i in enumerate(way):
        if blanks == _MOST_BLANKS:
            return 0, blanks
        indent = _indent(lines[i])
        if indent != -1:
            return indent, blanks
    return -1, len(way)


def _indent(line: bytes) -> int:
    """Columns before the first visible character, tabs to eight; −1 for a blank line."""
    column = 0
    for byte in line:
        if byte == 0x20:
            column += 1
        elif byte == 0x09:
            column += 8 - column % 8
        elif byte not in b"\n\v\f\r":
            return column
        if column >= _DEEPEST:
            return _DEEPEST
    return -1
