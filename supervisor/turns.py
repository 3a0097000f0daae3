"""In what order models that come together are placed: that of the configuration, as `modelpool plan` shows it. Pure.

Their sources look at their folders side by side and answer in any order, but where memory is short, whoever is placed
first decides who is refused. So a model waits until those before it have been looked at, for LOOK_S at the most: a
file system that hangs, or a copy that takes its time, keeps nobody else from being served. Asked by the manager.
"""

from collections.abc import Collection, Iterable

from .model import Model

# A folder that has just been written is whole after a second (`settle_s`) and is looked at each half second.
LOOK_S = 5.0


class Turns:
    """Remembers how long each model has been waited for. `due_s`: when that changes though nothing happens."""

    def __init__(self) -> None:
        self.due_s: float | None = None
        self._since_s: dict[str, float] = {}

    def waiting(self, models: Iterable[Model], now_s: float) -> Collection[str]:
        """The names of those, in this order, whose turn has not come."""
        ordered = [model for model in models if model.configured]
        since_s = {model.name: self._since_s.get(model.name, now_s) for model in ordered if not model.polled}
        self._since_s = since_s
        until_s = [each + LOOK_S for each in since_s.values() if now_s < each + LOOK_S]
        self.due_s = min(until_s, default=None)
        waiting: set[str] = set()
        ahead = False
        for model in ordered:
            if ahead:
                waiting.add(model.name)
            ahead = ahead or (model.name in since_s and now_s < since_s[model.name] + LOOK_S)
        return waiting
