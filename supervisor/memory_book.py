"""What is remembered of GPU memory: how much each servable's process took, and how much of that was CUDA's own.

Kept by GPU product, across restarts, in a small JSON file of the cache directory. Only `read` and `write` touch it; a
file that is no such book counts as empty, since all of it can be measured again.
"""

import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .wire.ids import ServableId

FILE = "gpu_memory.json"
# CUDA's context, libraries and kernels in one process, until it was measured: on the safe side for present GPUs.
DEFAULT_OVERHEAD_BYTES = 512 << 20
# More than this is not CUDA's: TensorFlow's allocator takes memory in regions that double, and what it has taken but
# not used yet looks the same from outside.
MAX_OVERHEAD_BYTES = 1 << 30
# Versions of a model come and go; the newest are worth remembering.
MAX_SERVABLES = 1000
_FORMAT = 1


@dataclass(slots=True)
class MemoryBook:
    """`needs`: the most that a process of a servable was seen to take, by product. `overheads`: the least of CUDA's."""

    needs: dict[ServableId, dict[str, int]] = field(default_factory=dict)
    overheads: dict[str, int] = field(default_factory=dict)

    def need_bytes(self, servable: ServableId, product: str) -> int | None:
        """Of this version, or else of the model's other versions; None when none was ever measured on such a GPU."""
        exact = self.needs.get(servable, {}).get(product)
        if exact is not None:
            return exact
        others = [sizes[product] for id_, sizes in self.needs.items() if id_.name == servable.name and product in sizes]
        return max(others, default=None)

    def overhead_bytes(self, product: str) -> int:
        return min(MAX_OVERHEAD_BYTES, self.overheads.get(product, DEFAULT_OVERHEAD_BYTES))

    def note(self, servable: ServableId, product: str, process_bytes: int, peak_bytes: int) -> bool:
        """A process of the servable takes so much; TensorFlow's allocator has used `peak_bytes` of it (0: unknown).

        Whether that is news. What the allocator did not use is CUDA's, or the allocator's slack: the least seen counts.
        """
        before = (dict(self.needs.get(servable, {})), self.overheads.get(product))
        sizes = self.needs.pop(servable, {})
        sizes[product] = max(process_bytes, sizes.get(product, 0))
        self.needs[servable] = sizes
        while len(self.needs) > MAX_SERVABLES:
            del self.needs[next(iter(self.needs))]
        if 0 < peak_bytes < process_bytes:
            self.overheads[product] = min(process_bytes - peak_bytes, self.overheads.get(product, process_bytes))
        return before != (sizes, self.overheads.get(product))

    def to_json(self) -> str:
        needs = [[id_.name, id_.version, sizes] for id_, sizes in self.needs.items()]
        return json.dumps({"format": _FORMAT, "needs": needs, "overheads": self.overheads}, indent=1)

    @classmethod
    def from_json(cls, text: str) -> "MemoryBook":
        """Raises ValueError for what is no such book."""
        document = json.loads(text)
        if not isinstance(document, dict) or document.get("format") != _FORMAT:
            raise ValueError(f"expected format {_FORMAT}")
        book = cls()
        try:
            for name, version, sizes in document["needs"]:
                book.needs[ServableId(_text(name), _size(version))] = _sizes(sizes)
            book.overheads = _sizes(document["overheads"])
        except (KeyError, TypeError) as error:
            raise ValueError(f"expected needs and overheads: {error}") from error
        return book


def read(folder: Path) -> MemoryBook:
    """The book in this folder; an empty one where there is none, or none that can be used."""
    try:
        return MemoryBook.from_json((folder / FILE).read_text("utf-8"))
    except (OSError, ValueError, RecursionError):
        return MemoryBook()


def write(folder: Path, text: str) -> None:
    """Replace the book in one step. Raises OSError."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    unfinished = folder / f".{FILE}.{os.getpid()}"
    unfinished.write_text(text, "utf-8")
    unfinished.replace(folder / FILE)


def _sizes(value: Any) -> dict[str, int]:
    return {_text(product): _size(size) for product, size in value.items()} if isinstance(value, dict) else _size(value)


def _size(value: Any) -> Any:
    if type(value) is not int or not 0 <= value < 1 << 63:
        raise ValueError(f"expected a size, got {value!r:.40}")
    return value


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"expected a text, got {value!r:.40}")
    return value
