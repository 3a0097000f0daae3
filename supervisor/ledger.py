"""Who holds memory on which GPU: processes from their start until the memory of the dead is confirmed free. Pure.

Readings of NVML and the lives of workers come in; out come what each process was seen to take, what others than us
take, and why no load may start on a device yet. In a container NVML names the host's pids, which match none of ours:
then the device's total before and after says it.
"""

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from .devices import Device, Reading
from .wire.ids import Incarnation, SlotId
from .wire.log import fields

log = logging.getLogger(__name__)

# How long the memory of a dead process may take to come back before a load is tried all the same.
CONFIRM_S = 30.0
# What a device's total may differ by without meaning anything.
SLACK_BYTES = 64 << 20
# How long the reading that measures a process that has loaded its model may take.
READ_WITHIN_S = 5.0


@dataclass(frozen=True, slots=True)
class Measured:
    """A process of this slot takes so much; `peak_bytes` is what TensorFlow's allocator said, 0 for nothing."""

    slot: SlotId
    device: Device
    process_bytes: int
    peak_bytes: int


@dataclass(slots=True)
class _Process:
    slot: SlotId
    device: Device
    known: bool
    """What it takes is declared, or was measured before."""
    claim_bytes: int
    """What it may take."""
    baseline_bytes: int
    """Used on the device, by everybody, before this process was there."""
    alone: bool
    """No other process of ours came or went on the device since."""
    pid: int | None = None
    pid_is_anothers: bool = False
    """NVML names the host's pids, and one of those is the same number."""
    seen: bool = False
    """NVML has named its pid."""
    held_bytes: int = 0
    """What NVML said last that it holds, where it says."""
    unnamed_bytes: int | None = None
    """What was in use beside all that NVML attributes to processes, as last read of it alive."""
    ready_s: float | None = None
    settled: bool = False
    """It was read since it has loaded its model."""
    peak_bytes: int = 0
    measured_bytes: int = 0
    used_at_death_bytes: int = 0
    died_s: float | None = None

    @property
    def least_bytes(self) -> int:
        """What it holds at least: TensorFlow gives nothing back."""
        return self.held_bytes or self.measured_bytes

    def note(self, reading: Reading) -> None:
        """Take in what this reading says of its pid."""
        if self.pid_is_anothers or reading.processes is None:
            return
        self.seen = self.seen or reading.names(self.pid)
        self.held_bytes = self.held_in(reading) or (0 if self.died_s is None else self.held_bytes)
        if self.died_s is None:
            self.unnamed_bytes = reading.unnamed_bytes

    def held_in(self, reading: Reading) -> int | None:
        """What this reading says that it holds; None where it does not say."""
        return None if self.pid_is_anothers else reading.held_by(self.pid)


@dataclass(slots=True)
class Ledger:
    """The processes on all GPUs. Devices whose memory is not accounted have none. Times are monotonic seconds."""

    _processes: dict[Incarnation, _Process] = field(default_factory=dict)
    _used: dict[str, int] = field(default_factory=dict)
    _read_s: dict[str, float] = field(default_factory=dict)
    _named: dict[str, frozenset[int]] = field(default_factory=dict)
    _foreign: dict[str, int] = field(default_factory=dict)

    # -- the life of a process -------------------------------------------------------------------------------

    def started(
        self, incarnation: Incarnation, slot: SlotId, device: Device, *, known: bool, claim_bytes: int = 0
    ) -> None:
        """A process is about to come. `known`: what it takes is declared, or was measured before."""
        if not device.memory_bytes:
            return
        self._disturb(device)
        quiet = all(other.settled for other in self._on(device))
        self._processes[incarnation] = _Process(
            slot, device, known, claim_bytes, self._used.get(device.id, 0), alone=quiet
        )

    def spawned(self, incarnation: Incarnation, pid: int) -> None:
        process = self._processes.get(incarnation)
        if process is not None and process.pid is None:
            process.pid_is_anothers = pid in self._named.get(process.device.id, ())
            process.pid = pid

    def ready(self, incarnation: Incarnation, peak_bytes: int, now_s: float) -> None:
        """It has loaded its model; the next reading measures it."""
        if incarnation in self._processes:
            process = self._processes[incarnation]
            process.ready_s, process.peak_bytes = now_s, peak_bytes

    def exited(self, incarnation: Incarnation, now_s: float) -> None:
        """Its process is gone; its memory counts as taken until a reading says otherwise."""
        process = self._processes.get(incarnation)
        if process is not None:
            process.died_s = now_s
            process.used_at_death_bytes = self._used.get(process.device.id, 0)
            self._disturb(process.device)

    def _disturb(self, device: Device) -> None:
        """A process comes or goes: what another that loads just now takes cannot be told by difference any more."""
        for other in self._on(device):
            other.alone = other.alone and other.settled

    # -- readings --------------------------------------------------------------------------------------------

    def read(self, readings: Iterable[Reading], taken_s: float) -> list[Measured]:
        """Take in what was read after `taken_s`; what was measured thereby."""
        self._forget_dead(taken_s)
        news: list[Measured] = []
        for reading in readings:
            if reading.error or not reading.device.memory_bytes:
                continue
            self._used[reading.device.id] = reading.used_bytes
            self._read_s[reading.device.id] = taken_s
            self._named[reading.device.id] = frozenset(reading.processes or ())
            for incarnation, process in list(self._processes.items()):
                if not process.device.is_same(reading.device):
                    continue
                process.note(reading)
                if process.died_s is not None and _confirmed(process, reading, taken_s):
                    del self._processes[incarnation]
                elif process.died_s is None and (measured := _measure(process, reading, taken_s)):
                    news.append(Measured(process.slot, process.device, measured, process.peak_bytes))
            self._note_foreign(reading)
        return news

    def _forget_dead(self, now_s: float) -> None:
        """Of those that have had their time nothing is awaited any more; what they hold counts as somebody else's.

        Where nothing was read since they died, what they held is taken off what was read before.
        """
        for incarnation, process in list(self._processes.items()):
            if process.died_s is not None and now_s - process.died_s >= CONFIRM_S:
                del self._processes[incarnation]
                device = process.device.id
                if device in self._used and self._read_s[device] < process.died_s:
                    self._used[device] = max(0, self._used[device] - process.least_bytes)
                names = fields(slot=process.slot, device=process.device.id, after_s=CONFIRM_S)
                log.warning("memory of a dead worker not seen free, waiting no longer %s", names)

    def _note_foreign(self, reading: Reading) -> None:
        """What others hold: known while none of ours is there, or while NVML tells ours apart; else as it was.

        But never more than what is in use beside what ours hold at least.
        """
        device, ours = reading.device.id, self._on(reading.device)
        living = [process for process in ours if process.died_s is None]
        held = [process.held_in(reading) if process.seen else None for process in living]
        most_bytes = max(0, reading.used_bytes - sum(process.least_bytes for process in living))
        if len(living) == len(ours) and None not in held:
            self._foreign[device] = most_bytes
        elif device in self._foreign:
            self._foreign[device] = min(self._foreign[device], most_bytes)

    # -- answers ---------------------------------------------------------------------------------------------

    def foreign_bytes(self, device_id: str) -> int:
        """What is held by others than our workers, the driver included."""
        return self._foreign.get(device_id, 0)

    def used_bytes(self, device_id: str) -> int:
        """What everybody holds, as last read."""
        return self._used.get(device_id, 0)

    def coming_bytes(self, device: Device) -> int:
        """What processes that are still loading may take beyond what was read of them."""
        loading = [each for each in self._on(device) if each.died_s is None and not each.settled]
        return sum(max(0, each.claim_bytes - each.held_bytes) for each in loading)

    def measured_bytes(self, incarnation: Incarnation) -> int:
        """What this process was seen to take; 0 while that is open."""
        process = self._processes.get(incarnation)
        return process.measured_bytes if process is not None else 0

    def busy(self, device: Device, now_s: float, *, known: bool, urgent: bool) -> str:
        """Why no load may start on the device now; "" when one may. `urgent`: it does not wait for other loads.

        What nobody knows yet is loaded alone, so that what it takes can be told from the device's total.
        """
        self._forget_dead(now_s)
        for process in self._on(device):
            if process.died_s is not None:
                return f"the memory of a dead worker of {process.slot} is not confirmed free yet"
            unread = process.ready_s is None or (not process.settled and now_s - process.ready_s < READ_WITHIN_S)
            if process.died_s is None and unread and not urgent and not (known and process.known):
                return f"{process.slot.servable} is being loaded on {device.id}"
        return ""

    def unconfirmed(self) -> Mapping[str, int]:
        """How many dead processes of each device have not been seen to give their memory back."""
        counts: dict[str, int] = {}
        for process in self._processes.values():
            if process.died_s is not None:
                counts[process.device.id] = counts.get(process.device.id, 0) + 1
        return counts

    def _on(self, device: Device) -> list[_Process]:
        return [process for process in self._processes.values() if process.device.is_same(device)]


def _measure(process: _Process, reading: Reading, taken_s: float) -> int:
    """Take this reading in for a process that has loaded its model; the bytes where that is news, else 0."""
    if process.ready_s is None or taken_s < process.ready_s:
        return 0
    first, process.settled = not process.settled, True
    size = process.held_in(reading)
    if size is None and first and process.alone:  # later the total may change by anybody's doing
        size = max(process.peak_bytes, reading.used_bytes - process.baseline_bytes)
    if size is None or size <= process.measured_bytes:
        return 0
    process.measured_bytes = size
    return size


def _confirmed(process: _Process, reading: Reading, taken_s: float) -> bool:
    """Whether this reading, taken after the death, shows the memory free.

    That its pid is not named any more is not enough: a driver may let go of the process before its memory.
    """
    if process.died_s is None or taken_s < process.died_s:
        return False
    if process.seen and reading.names(process.pid):
        return False
    if process.held_bytes and None not in (process.unnamed_bytes, reading.unnamed_bytes):
        return (reading.unnamed_bytes or 0) <= (process.unnamed_bytes or 0) + SLACK_BYTES
    given_back = process.used_at_death_bytes - reading.used_bytes
    expected = max(process.measured_bytes, process.peak_bytes)
    if expected > SLACK_BYTES and given_back >= expected - SLACK_BYTES:
        return True
    return reading.used_bytes <= process.baseline_bytes + SLACK_BYTES
