"""How many requests of one model came and were answered of late: a sliding window over two totals. Pure."""

from collections import deque

SPAN_NS = 10 * 10**9
_STEP_NS = 10**9


class Throughput:
    """Whoever counts adds to `came` and `answered`, and calls `mark` when `next_mark_ns` has passed."""

    __slots__ = ("_marks", "answered", "came", "next_mark_ns")

    def __init__(self) -> None:
        self.came = 0
        self.answered = 0
        self.next_mark_ns = 0
        self._marks: deque[tuple[int, int, int]] = deque()

    def mark(self, now_ns: int) -> None:
        """Note how the totals stand, about once a second."""
        self._forget(now_ns)
        self._marks.append((now_ns, self.came, self.answered))
        self.next_mark_ns = now_ns + _STEP_NS

    def came_lately(self, now_ns: int) -> int:
        """Requests that came within the last SPAN_NS, as far as the marks tell."""
        self._forget(now_ns)
        return self.came - self._marks[0][1] if self._marks else self.came

    def rate(self, now_ns: int) -> float:
        """Answers per second within the last SPAN_NS; 0 when there were none."""
        self._forget(now_ns)
        if not self._marks:
            return 0.0
        since_ns, _, answered = self._marks[0]
        return (self.answered - answered) * 1e9 / max(1, now_ns - since_ns)

    def _forget(self, now_ns: int) -> None:
        """Keep the newest mark from before the window and those within it."""
        while len(self._marks) > 1 and self._marks[1][0] <= now_ns - SPAN_NS:
            self._marks.popleft()
