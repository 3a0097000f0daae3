"""What a refusal says, read back from its text, so that tests can hold it against what is so."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

_GIB, _MIB = 1 << 30, 1 << 20
_UNITS = {"GiB": _GIB, "MiB": _MIB}
_AMOUNT = r"([\d.]+ [GM]iB)"
_FULL = re.compile(
    rf"needs {_AMOUNT}[^;]*?, free on (\S+) {_AMOUNT}, (?:would fit there after unloading ([^;]+)"
    rf"|which would not be enough if it were empty \({_AMOUNT}\))"
)
_LOST = re.compile(r"(\S+) is lost \(")
_UNFIT = re.compile(r"on (\S+): ")


@dataclass(frozen=True, slots=True)
class Full:
    """A device without room. `leaving`: what would have to go; empty where even that would not help."""

    device: str
    needs_bytes: int
    free_bytes: int
    leaving: tuple[str, ...]
    empty_bytes: int

    @property
    def shown_to_bytes(self) -> int:
        """What a number of the text may be off by: they are rounded."""
        return _GIB // 10 + _MIB


def full_devices(refusal: str) -> list[Full]:
    """The devices that the text says have no room."""
    return [
        Full(device, _bytes(needs), _bytes(free), tuple((leaving or "").split(", ")) if leaving else (), _bytes(empty))
        for needs, device, free, leaving, empty in _FULL.findall(refusal)
    ]


def named_devices(refusal: str) -> Iterator[str]:
    """All devices of which the text says why the model cannot be there."""
    for part in refusal.partition(": ")[2].split("; "):
        found = _FULL.search(part)
        if found:
            yield found[2]
        yield from _LOST.findall(part)
        if not found and (unfit := _UNFIT.search(part)):
            yield unfit[1]


def _bytes(text: str) -> int:
    number, _, unit = text.partition(" ")
    return int(float(number) * _UNITS[unit]) if unit else 0
