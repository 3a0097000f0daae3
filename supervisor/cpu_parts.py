"""Which CPUs each replica of a model has when they divide them (`divide_cpus`). Pure."""

from collections.abc import Collection


def part(cpus: Collection[int], number: int, parts: int) -> tuple[int, ...]:
    """Those of one of so many parts, counted from 0 and on from the first again.

    Neighbours stay together, and parts differ by one CPU at the most; there is one for each part, twice where there are
    fewer CPUs than parts.
    """
    ordered = sorted(cpus)
    if parts >= len(ordered):
        return tuple(ordered[number % len(ordered) :][:1])
    first = number % parts
    return tuple(ordered[first * len(ordered) // parts : (first + 1) * len(ordered) // parts])
