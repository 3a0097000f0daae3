"""One model as the manager keeps it: what its source wants, what exists of it, and what it falls back to. Pure.

Which versions are wanted comes from the source; in what order they come and go is `transition_policy`'s; here is what
lies between: versions that come back, that failed and have changed since, and the roll-back of one that is given up.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from .lifecycle import SlotState
from .placement import DevicePolicy
from .servable import Servable
from .transition_policy import Presence, TransitionPolicy, VersionSnapshot
from .wire.ids import ServableId
from .wire.route_table import ModelRoute, RequestRules
from .wire.status import OK, Code, Status

# How many versions that have come to their end a model's status goes on listing.
MAX_ENDED_VERSIONS = 8


@dataclass(frozen=True, slots=True)
class ModelSettings:
    """How one model is handled. `rollback`: a version that is given up gives way to the last one that served.

    `required`: without it the server is not ready.
    `max_restarts` within `restart_period_s`, None for what holds for all. `run_timeout_s`: what one execution may take,
    0 for as long as it likes. `of_loads`: what else may decide how a load ends.
    """

    labels: Mapping[str, int] = field(default_factory=dict)
    transition: TransitionPolicy = TransitionPolicy.AVAILABILITY_PRESERVING
    rollback: bool = True
    required: bool = True
    devices: DevicePolicy = field(default_factory=DevicePolicy)
    requests: RequestRules = field(default_factory=RequestRules)
    max_restarts: int | None = None
    restart_period_s: float | None = None
    run_timeout_s: float = 0.0
    of_loads: tuple[object, ...] = ()


@dataclass(slots=True)
class Model:
    """A model that is, or was, configured. `polled`: its source has answered once."""

    name: str
    settings: ModelSettings = field(default_factory=ModelSettings)
    configured: bool = True
    polled: bool = False
    source_error: Status = OK
    source_notes: tuple[str, ...] = ()
    """What else the source has to say: versions that are absent or not complete yet."""
    servables: dict[int, Servable] = field(default_factory=dict)
    fallback: int | None = None
    """The version that serves in place of one that was given up."""
    _wanted: dict[int, str] = field(default_factory=dict)
    _on_disk: dict[int, str] = field(default_factory=dict)
    _last_good: int | None = None

    def configure(self, settings: ModelSettings) -> None:
        """How it is handled from now on. Where that says how loads go, what was given up is tried once more."""
        changed = settings.of_loads != self.settings.of_loads
        self.configured, self.settings = True, settings
        if changed:
            self._try_failed()

    def retire(self) -> None:
        """The model is not configured any more: nothing of it is wanted."""
        self.configured, self.polled, self.source_error, self.source_notes = False, False, OK, ()
        # What holds for those that still drain, such as how long they may execute, goes on holding.
        self.settings = replace(self.settings, labels={}, required=False, devices=DevicePolicy())
        self._want({}, {})

    def aspire(self, wanted: Mapping[int, str], on_disk: Mapping[int, str], fingerprints: Mapping[int, str]) -> None:
        """What the source found: versions to serve, versions that exist, and what their files look like."""
        self.polled, self.source_error = True, OK
        for version, fingerprint in fingerprints.items():
            servable = self.servables.get(version)
            if servable is not None and servable.presence is Presence.FAILED and servable.fingerprint != fingerprint:
                self._try_afresh(servable, wanted.get(version, servable.path))  # its files are not those that failed
        self._want(wanted, on_disk)
        for version, fingerprint in fingerprints.items():
            if version in self.servables and self.servables[version].fingerprint is None:
                self.servables[version].fingerprint = fingerprint

    def source_failed(self, error: Status) -> None:
        """The source could not look: nothing changes."""
        self.polled, self.source_error = True, error

    def roll_back(self, version: int) -> int | None:
        """A slot of `version` was given up: want the last good one in its place, where nothing serves any more that is
        to; which one that is, None when there is none.
        """
        servable, good = self.servables[version], self.good_instead_of(version)
        if good is None or not servable.is_given_up:
            return None
        others = [each for each in self.servables.values() if each is not servable]
        if any(each.presence is Presence.LIVE and not each.aspired for each in others):
            return None  # it has taken over from nobody yet
        serves = {Presence.NEW, Presence.LIVE}
        if not servable.was_promoted and any(each.presence in serves and not each.is_refused for each in others):
            return None
        self.fallback = good
        servable.rolled_back = True
        self._refresh()
        return self.fallback

    def good_instead_of(self, version: int) -> int | None:
        """The version that served before the wanted `version` and could again; None: there is none, or it is not to."""
        good = self._last_good
        may = self.settings.rollback and version in self._wanted and good != version
        return good if may and good in self._on_disk else None

    def refresh(self) -> None:
        """Account for what has happened since: a wanted version that is gone comes anew; a fallback may be no good."""
        if self.fallback is not None:
            servable = self.servables.get(self.fallback)
            if servable and servable.failed_for_good:
                self._last_good = None
            if self.fallback not in self._on_disk or (servable and self._is_no_good(servable)):
                self.fallback = None
        self._refresh()

    def held_back(self) -> list[Servable]:
        """Wanted versions that were given up for a fallback which does not serve either."""
        return [s for s in self._aspired() if s.rolled_back and self.fallback is None]

    def leaves(self, version: int, acked_epoch: int) -> None:
        """A version is being unloaded in good order: the last good one, if it answers, or just comes back."""
        servable = self.servables[version]
        if servable.available(acked_epoch) or servable.is_good:
            self._last_good = version

    def snapshots(self, acked_epoch: int) -> list[VersionSnapshot]:
        return [servable.snapshot(acked_epoch) for servable in self.servables.values()]

    def failed_versions(self) -> tuple[int, ...]:
        """Wanted versions that were given up: those to be tried again when their files change."""
        return tuple(
            version
            for version, servable in self.servables.items()
            if servable.aspired and servable.presence is Presence.FAILED
        )

    def needed_versions(self) -> frozenset[int]:
        """Versions whose files are, or may come to be, in use."""
        kept = {version for version, servable in self.servables.items() if servable.presence is not Presence.GONE}
        return frozenset(kept | set(self._wanted) | ({self._last_good} if self._last_good is not None else set()))

    def needed_paths(self) -> frozenset[str]:
        """Where their files lie."""
        kept = {servable.path for servable in self.servables.values() if servable.presence is not Presence.GONE}
        return frozenset(kept | set(self._wanted.values()) | set(self._on_disk.values()))

    @property
    def must_clear_first(self) -> bool:
        """Something unwanted is in memory beside which nothing else may be loaded."""
        preserves = self.settings.transition is TransitionPolicy.RESOURCE_PRESERVING
        return preserves and any(not s.aspired and s.presence is not Presence.GONE for s in self.servables.values())

    def available_versions(self, acked_epoch: int) -> tuple[int, ...]:
        return tuple(version for version, servable in self.servables.items() if servable.available(acked_epoch))

    def outcome(self, acked_epoch: int) -> Status | None:
        """Whether it answers: OK, or why not, or None while that is open."""
        if not self.polled:
            return None
        wanted = self._aspired()
        if any(servable.available(acked_epoch) for servable in wanted):
            return OK
        if not wanted:
            return self.source_error if self.source_error.code is not Code.OK else _no_versions(self.name)
        if all(servable.has_failed for servable in wanted):
            return max(wanted, key=lambda servable: servable.id.version).first_error
        return None

    def labels_settled(self, acked_epoch: int) -> bool:
        """No wanted version that has a label is still on its way."""
        labelled = set(self.settings.labels.values())
        wanted = [servable for servable in self._aspired() if servable.id.version in labelled]
        return all(servable.available(acked_epoch) or servable.has_failed for servable in wanted)

    def ended(self) -> tuple[ServableId, Status] | None:
        """The newest wanted version, when every wanted one was given up, or cannot be started."""
        wanted = self._aspired()
        if wanted and all(servable.has_ended for servable in wanted):
            newest = max(wanted, key=lambda servable: servable.id.version)
            return newest.id, newest.first_error
        return None

    def route(self) -> ModelRoute:
        versions = tuple(self.servables[version].route() for version in sorted(self.servables))
        settings = self.settings
        return ModelRoute(self.name, versions, dict(settings.labels), settings.required, settings.requests)

    def newest_first(self) -> Iterable[Servable]:
        for version in sorted(self.servables, reverse=True):
            yield self.servables[version]

    @property
    def is_gone(self) -> bool:
        """Nothing of it has, or waits for, a process."""
        return all(servable.presence is Presence.GONE for servable in self.servables.values())

    def forget_gone(self) -> None:
        """Keep the newest ended versions listed; TF Serving lists them all, for ever."""
        gone = sorted(v for v, s in self.servables.items() if s.presence is Presence.GONE and not s.aspired)
        for version in gone[: max(0, len(gone) - MAX_ENDED_VERSIONS)]:
            del self.servables[version]

    def _aspired(self) -> list[Servable]:
        return [servable for servable in self.servables.values() if servable.aspired]

    def _is_no_good(self, fallback: Servable) -> bool:
        """It failed, too. Where the others have failed for good it is kept, to be tried again as any that is wanted."""
        if fallback.presence is not Presence.FAILED:
            return False
        others = [each for each in self._aspired() if each is not fallback]
        return fallback.failed_for_good or not all(each.failed_for_good for each in others)

    def _try_failed(self) -> None:
        """Of what is wanted: what was given up, be it one place of a version that serves in others."""
        for servable in self._aspired():
            if servable.presence is Presence.FAILED:
                self._try_afresh(servable, servable.path)
            else:
                for slot in servable.slots:
                    if slot.state is SlotState.FAILED:
                        slot.try_at(slot.since_s)
        self._refresh()

    def _try_afresh(self, servable: Servable, path: str) -> None:
        """One that was given up has another chance, and whatever serves in its place has done its duty."""
        self.servables[servable.id.version] = Servable(servable.id, path)
        self.fallback = None

    def _want(self, wanted: Mapping[int, str], on_disk: Mapping[int, str]) -> None:
        if set(wanted) != set(self._wanted):
            self.fallback = None
        self._wanted, self._on_disk = dict(wanted), dict(on_disk)
        self._refresh()

    def _refresh(self) -> None:
        """Mark what is wanted, with a fresh record for what has come to its end before, or failed in another folder."""
        for version, path in self._wanted.items():
            servable = self.servables.get(version)
            if servable is not None and servable.presence is Presence.FAILED and servable.path != path:
                self._try_afresh(servable, path)
        paths = dict(self._wanted)
        if self.fallback is not None and self.fallback in self._on_disk:
            paths.setdefault(self.fallback, self._on_disk[self.fallback])
        for version, path in paths.items():
            servable = self.servables.get(version)
            if servable is None or servable.presence is Presence.GONE or _came_back_failed(servable):
                servable = self.servables[version] = Servable(ServableId(self.name, version), path)
            servable.aspired = True
            if not servable.keeps_its_path:
                servable.path = path
        for version, servable in list(self.servables.items()):
            servable.aspired = version in paths
            if not servable.aspired and not servable.slots:
                del self.servables[version]  # skipped: a newer one came before it was started


def _came_back_failed(servable: Servable) -> bool:
    """Removed and wanted again: TF Serving, too, tries such a version afresh."""
    return not servable.aspired and servable.presence is Presence.FAILED


def _no_versions(name: str) -> Status:
    return Status(Code.NOT_FOUND, f"No versions of servable {name} found under its base path")
