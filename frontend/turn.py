"""What is done at the end of a turn of the event loop, once for all that the turn has brought. In the event loop.

Left to itself the loop comes to it in its next turn, and looks at all its descriptors before. Who knows that nothing
more comes in this turn ends it there and then.
"""

import asyncio
from collections.abc import Callable
from weakref import WeakKeyDictionary


class Turn:
    """One for each loop."""

    def __init__(self) -> None:
        self._later: list[Callable[[], None]] = []
        self._is_held = False

    @staticmethod
    def of_loop() -> "Turn":
        """That of the running loop."""
        return _turns.setdefault(asyncio.get_running_loop(), Turn())

    def at_end(self, callback: Callable[[], None]) -> None:
        """Have it called once, when the turn ends: by `end`, or by the loop."""
        if not self._later and not self._is_held:
            asyncio.get_running_loop().call_soon(self.end)
        self._later.append(callback)

    def hold(self) -> None:
        """The caller ends the turn."""
        self._is_held = True

    def end(self) -> None:
        """What these callbacks ask for comes in the next turn."""
        self._is_held = False
        later, self._later = self._later, []
        for callback in later:
            callback()


_turns: WeakKeyDictionary[asyncio.AbstractEventLoop, Turn] = WeakKeyDictionary()
