"""A file that is read again and again: parsed only when something about it is another than at the last look.

A large configuration takes seconds to parse, at every poll if need be. Called in threads, one call after the other.
"""

import hashlib
from collections.abc import Callable
from typing import Generic, TypeVar

from .wire.status import PoolError, Status, StatusError

A = TypeVar("A")
T = TypeVar("T")


class PolledFile(Generic[A, T]):
    """What one file says, or that it cannot be used."""

    def __init__(self, text: Callable[[], str], parse: Callable[[str, A], T]) -> None:
        """`text` reads the file; `parse` gets that, and what it is to be parsed against. Both may raise PoolError."""
        self._text = text
        self._parse = parse
        self._looked: tuple[bytes, A] | None = None
        self._outcome: T | Status | None = None

    def read(self, against: A) -> T:
        """What the file says now. Raises what `text` and `parse` raise, a PoolError with the same status."""
        text = self._text()
        looked = hashlib.blake2b(text.encode("utf-8", "surrogatepass")).digest(), against
        if looked != self._looked:
            self._looked = None  # in case of an error that another look need not have, such as a lack of memory
            try:
                self._outcome = self._parse(text, against)
            except PoolError as error:
                self._outcome = error.status
            self._looked = looked
        if isinstance(self._outcome, Status):
            raise StatusError(self._outcome)
        return self._outcome  # type: ignore[return-value]
