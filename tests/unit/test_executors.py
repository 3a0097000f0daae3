"""How many executors are found to pay, on a machine that is made up, with a clock of its own."""

import heapq
import itertools
import random
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelpool.worker.executors import (
    AGAIN_MOST_NS,
    AGAIN_NS,
    GAIN,
    LONG_S,
    MOST_NS,
    SOON_NS,
    TURN_NS,
    TURNS,
    FixedExecutors,
    LearnedExecutors,
)

RUN_S = 0.01


class Machine:
    """`rate(n)`: requests per second of n executors, all of which always have something to run."""

    def __init__(self, rate: Callable[[int], float], most: int = 4, run_s: float = RUN_S) -> None:
        self.rate = rate
        self.run_s = run_s
        self.now_ns = 0
        self.told: list[int] = []
        self.told_ns: list[int] = []
        self.used: list[int] = []
        self.executors = LearnedExecutors(most, self._tell)

    def _tell(self, count: int, rates: dict[int, float]) -> None:
        self.told.append(count)
        self.told_ns.append(self.now_ns)

    def run(self, seconds: float) -> int:
        """What it comes to in so much time."""
        until_ns = self.now_ns + int(seconds * 1e9)
        while self.now_ns < until_ns:
            self.now_ns += int(1e9 / self.rate(self.executors.count))
            self.executors.ran(self.now_ns, 1, self.run_s)
            self.used.append(self.executors.count)
        return self.executors.count


@pytest.mark.parametrize(
    ("rates", "most", "best"),
    [
        ({1: 100, 2: 140, 4: 150}, 4, 4),
        ({1: 100, 2: 140, 4: 141}, 4, 2),
        ({1: 100, 2: 102}, 2, 1),
        ({1: 100, 2: 60}, 2, 1),
        ({1: 100, 2: 140}, 2, 2),
    ],
)
def test_the_best_number_is_found(rates: dict[int, float], most: int, best: int) -> None:
    machine = Machine(rates.__getitem__, most)
    assert machine.run(10.0) == best
    assert machine.told[-1] == best
    assert set(machine.used) <= set(rates)


def test_trials_come_ever_more_seldom_while_they_find_what_is_known() -> None:
    machine = Machine(lambda count: 100 / count, 2)
    machine.run(20 * AGAIN_NS / 1e9)
    gaps_s = [(later - earlier) / 1e9 for earlier, later in itertools.pairwise(machine.told_ns)]
    wanted_s = [AGAIN_NS / 1e9 * 2**i for i in range(len(gaps_s))]
    assert len(gaps_s) >= 5
    assert gaps_s == pytest.approx([min(each, AGAIN_MOST_NS / 1e9) for each in wanted_s], abs=2.0)
    assert sum(count > 1 for count in machine.used) / len(machine.used) < 0.02


def test_what_is_known_is_tried_for_half_as_long() -> None:
    machine = Machine(lambda count: 100 / count, 2)
    lasted = []
    for _ in range(3):
        machine.used.clear()
        machine.run(AGAIN_NS / 1e9)
        lasted.append(machine.used.count(2))
    assert lasted[1:] == [pytest.approx(lasted[0] / 2, rel=0.2), 0]


class Unsteady(Machine):
    """Two executors bring what `gains` says, one after the other, each for one turn of theirs; the last one stays."""

    def __init__(self, gains: list[float], most: int = 2) -> None:
        self.gains = gains
        self.turns_of_two = 0
        self._last = 1
        super().__init__(self._rate, most)

    def _rate(self, count: int) -> float:
        self.turns_of_two += count == 2 and self._last == 1
        self._last = count
        turn = min(self.turns_of_two, len(self.gains)) - 1
        return 100.0 * (self.gains[turn] if count >= 2 else 1.0)

    def run_until_told(self, trials: int = 1) -> int:
        while len(self.told) < trials:
            self.run(0.02)
        return self.told[-1]


@pytest.mark.parametrize("gain", [1.3, 0.8])
def test_a_first_trial_whose_turns_agree_is_short(gain: float) -> None:
    machine = Unsteady([gain])
    machine.run_until_told()
    assert machine.turns_of_two == TURNS


@pytest.mark.parametrize(
    ("gains", "best"), [([0.6, 1.3, 0.7, 1.2, 1.3], 2), ([1.0, 1.06] * 4 + [0.9], 1), ([1.04, 1.3] * 4 + [1.3], 2)]
)
def test_a_first_trial_whose_turns_contradict_each_other_goes_on(gains: list[float], best: int) -> None:
    machine = Unsteady(gains)
    assert machine.run_until_told() == best
    assert machine.turns_of_two > TURNS
    assert machine.now_ns < MOST_NS


def test_a_first_trial_ends_also_where_its_turns_go_on_to_contradict_each_other() -> None:
    machine = Unsteady([1.5, 0.5] * 20)
    assert machine.run_until_told() == 1
    assert MOST_NS < machine.now_ns < MOST_NS + 4 * TURN_NS


def test_a_trial_of_what_is_known_does_not_go_on() -> None:
    machine = Unsteady([1.3])
    machine.run_until_told()
    machine.gains, machine.turns_of_two = [1.5, 0.5] * 20, 0
    machine.run_until_told(2)
    assert machine.turns_of_two == TURNS // 2


def test_one_turn_that_was_disturbed_does_not_keep_a_trial_going() -> None:
    machine = Unsteady([1.8, 18.0, 1.8])
    assert machine.run_until_told() == 2
    assert machine.turns_of_two == TURNS


def test_what_a_trial_has_found_so_far_counts_when_nothing_comes_any_more() -> None:
    machine = Unsteady([1.6, 0.9] * 20)
    while machine.turns_of_two < TURNS + 1 or machine.executors.count == 2:
        machine.run(0.02)
    assert not machine.told
    machine.executors.idle(0)
    assert machine.told == [2]


def test_a_trial_may_be_cut_in_a_turn_of_the_many_also() -> None:
    machine = Unsteady([1.6, 0.9] * 20)
    while machine.turns_of_two < TURNS + 1:
        machine.run(0.02)
    machine.executors.idle(1)
    assert not machine.told, "one that is busy tells enough of two"
    machine.executors.idle(0)
    assert machine.told == [2]


def test_a_turn_of_the_few_without_one_of_the_many_says_nothing() -> None:
    """Of a trial that is cut: the last turn of the few was in a quick moment."""
    machine = Unsteady([1.6, 0.7] * 20)  # 1.15 by 4 turns: not clear
    while machine.turns_of_two < TURNS or machine.executors.count == 2:
        machine.run(0.02)
    rate, machine.rate = machine.rate, lambda count: 1000.0
    while machine.executors.count == 1:
        machine.run(0.02)
    machine.rate = rate
    machine.executors.idle(0)
    assert machine.told == [2]


def test_after_a_trial_that_was_cut_the_next_step_waits() -> None:
    machine = Unsteady([1.6, 0.9] * 20, most=4)
    while machine.turns_of_two < TURNS + 1:
        machine.run(0.02)
    machine.executors.idle(0)
    assert machine.told == [2]
    machine.executors.idle(0)
    machine.used.clear()
    machine.gains = [1.3]
    machine.run(AGAIN_NS / 1e9 - 1.0)
    assert set(machine.used) == {2}


class Runs:
    """Executors that always have something to run, for as long as `run_s(count)` says.

    Each end is told by itself, as to the main thread.
    """

    def __init__(self, run_s: Callable[[int], float]) -> None:
        self.told: list[int] = []
        self.executors = LearnedExecutors(2, lambda count, rates: self.told.append(count))
        self._run_s = run_s

    def run(self) -> int:
        """Until it is decided."""
        ends = [(0, 0.0)]
        while not self.told:
            now_ns, took_s = heapq.heappop(ends)
            self.executors.ran(now_ns, 1, took_s)
            while len(ends) < self.executors.count:
                took_s = self._run_s(self.executors.count)
                heapq.heappush(ends, (now_ns + round(took_s * 1e9), took_s))
        return self.told[-1]


@pytest.mark.parametrize("one_ms", [3, 9, 20, 50, 64, 100, 250, 700])
@pytest.mark.parametrize(("gain", "best"), [(0.95, 1), (1.0, 1), (1.03, 1), (1.08, 2), (1.2, 2)])
def test_runs_that_end_together_are_not_counted_for_more_than_they_are(one_ms: int, gain: float, best: int) -> None:
    """Two executors that are equally long at it are in step, but for a little."""
    chance = random.Random(one_ms)

    def run_s(count: int) -> float:
        return one_ms / 1000 * (1 if count == 1 else 2 / gain) + chance.uniform(-1e-4, 1e-4)

    assert Runs(run_s).run() == best


@pytest.mark.parametrize("median_ms", [5, 20, 40])
@pytest.mark.parametrize(("gain", "best"), [(0.9, 1), (1.3, 2)])
def test_runs_that_are_unlike_are_judged_by_all_of_them(median_ms: int, gain: float, best: int) -> None:
    """A mean of single ratios says more than there is: of a half and twice as much, 1.25."""

    def found(seed: int) -> bool:
        chance = random.Random(seed)

        def run_s(count: int) -> float:
            return chance.lognormvariate(0.0, 0.7) * median_ms / 1000 * (1 if count == 1 else 2 / gain)

        return Runs(run_s).run() == best

    assert sum(map(found, range(40))) >= 30


def test_short_runs_are_left_alone() -> None:
    machine = Machine(lambda count: 1000.0 * count, 2, LONG_S * 0.9)
    assert machine.run(10.0) == 1
    assert machine.told == []


@pytest.mark.parametrize("known", [False, True])
def test_trials_that_were_interrupted_come_no_sooner(known: bool) -> None:
    """Two are better than one, but nobody sends enough for four, or does so no more."""
    machine = Machine({1: 100.0, 2: 160.0, 4: 165.0}.__getitem__, 4)
    while machine.told[-1:] != [2] or (known and len(machine.told) < 3):
        machine.run(0.01)
    machine.executors.idle(1)
    assert machine.executors.count == 2
    machine.used.clear()
    machine.run(AGAIN_NS / 1e9 - 1.0)
    assert set(machine.used) == {2}
    machine.run(AGAIN_NS / 1e9 + 3.0)
    assert 1 in machine.used


def test_what_is_known_is_not_tried_again_soon_where_little_comes() -> None:
    machine = Machine({1: 100.0, 2: 160.0}.__getitem__, 2)
    assert machine.run(AGAIN_NS / 1e9) == 2
    while machine.executors.count == 2:
        machine.run(0.01)
    machine.executors.idle(0)
    machine.used.clear()
    machine.run(AGAIN_NS / 1e9 - 1.0)
    assert set(machine.used) == {2}


def disturbed(machine: Machine, bad: int) -> None:
    """A trial, the next one, that finds two executors to bring `bad` hundredths of what they are worth."""
    trials, rate = len(machine.told), machine.rate
    machine.rate = lambda count: rate(count) * (bad / 100 if count == 2 else 1)
    while len(machine.told) == trials:
        machine.run(0.1)
    machine.rate = rate


@pytest.mark.parametrize(("worth", "bad"), [(1.2, 85), (0.95, 118)])
def test_what_a_disturbed_trial_found_is_soon_put_right(worth: float, bad: int) -> None:
    machine = Machine(lambda count: 100.0 * (worth if count == 2 else 1.0), 2)
    disturbed(machine, bad)
    wrong = 1 if worth > GAIN else 2
    assert machine.run(1.0) == wrong
    assert machine.run(AGAIN_NS / 1e9 + 3.0) == 3 - wrong


@pytest.mark.parametrize(("worth", "bad"), [(1.2, 85), (0.95, 118)])
def test_one_disturbed_trial_does_not_change_what_is_known(worth: float, bad: int) -> None:
    machine = Machine(lambda count: 100.0 * (worth if count == 2 else 1.0), 2)
    right = machine.run(3 * AGAIN_NS / 1e9 + 10.0)
    disturbed(machine, bad)
    assert machine.told[-1] == machine.executors.count == right
    trials = len(machine.told)
    machine.run(AGAIN_NS / 1e9 + 3.0)
    assert len(machine.told) == trials + 1, "what says something else is tried again soon"


@pytest.mark.parametrize(("answering", "found", "worth"), [(2, 2, 0.9), (1, 1, 1.8), (None, 1, 1.8)])
def test_turns_in_which_nothing_was_answered_are_soon_made_up_for(
    answering: int | None, found: int, worth: float
) -> None:
    machine = Machine(lambda count: 100.0 * (worth if count == 2 else 1.0), 2)
    while not machine.told:
        machine.now_ns += int(1e7)
        machine.executors.ran(machine.now_ns, int(machine.executors.count == answering), RUN_S)
    assert machine.executors.count == found
    trials = 3 if found == 2 else 1
    assert machine.run(trials * (AGAIN_NS / 1e9 + 2.0)) == 3 - found


def test_another_machine_is_noticed() -> None:
    machine = Machine(lambda count: 100.0 * count, 2)
    assert machine.run(100.0) == 2
    machine.rate = lambda count: 100.0 / count
    assert machine.run(2 * 100.0 + 3 * AGAIN_NS / 1e9 + 10.0) == 1


def test_where_another_number_is_best_it_is_tried_again_soon() -> None:
    machine = Machine(lambda count: 100.0 * (0.95 if count == 2 else 1.0), 2)
    assert machine.run(1000.0) == 1
    machine.rate = lambda count: 100.0 * count
    trials = len(machine.told)
    while machine.executors.count == 1 or len(machine.told) == trials:
        machine.run(0.1)
    assert len(machine.told) == trials + 1
    machine.run(AGAIN_NS / 1e9 + 3.0)
    assert len(machine.told) == trials + 2


def test_who_is_idle_needs_no_more() -> None:
    machine = Machine(lambda count: 100.0 * count, 2)
    for _ in range(1000):
        machine.run(RUN_S)
        machine.executors.idle(0)
    assert machine.told == []
    assert set(machine.used) == {1}


def test_a_trial_without_enough_requests_is_given_up_and_made_again() -> None:
    machine = Machine(lambda count: 100.0 * count, 2)
    while machine.executors.count == 1:
        machine.run(RUN_S)
    machine.executors.idle(1)
    assert machine.executors.count == 2, "one that is busy tells enough of two"
    machine.executors.idle(0)
    assert machine.executors.count == 1
    machine.run(SOON_NS / 1e9 / 2)
    assert set(machine.used[-20:]) == {1}
    assert machine.run(SOON_NS / 1e9 + 2 * TURNS * TURN_NS / 1e9 + 1.0) == 2


@given(
    st.lists(st.tuples(st.integers(0, 29), st.integers(0, 4), st.integers(0, 4), st.integers(5, 40)), min_size=200),
    st.sampled_from([2, 4]),
)
@settings(max_examples=50)
def test_never_less_than_one_nor_more_than_allowed(seen: list[tuple[int, int, int, int]], most: int) -> None:
    """Whatever is answered; one in thirty is followed by a moment without anything to run. Trials do end."""
    told: list[int] = []
    executors = LearnedExecutors(most, lambda count, rates: told.append(count))
    now_ns = 0
    for _ in range(3):
        for what, requests, running, turn in seen:
            now_ns += TURN_NS // turn
            executors.ran(now_ns, requests, RUN_S)
            if what == 0:
                executors.idle(running)
            assert executors.count in {1, 2, most}
    for _ in range(2000):
        now_ns += TURN_NS // 5
        executors.ran(now_ns, 1, RUN_S)
    assert told


def test_a_fixed_number_stays() -> None:
    fixed = FixedExecutors(3)
    fixed.ran(1, 1, 1.0)
    fixed.idle(0)
    assert (fixed.count, fixed.most) == (3, 3)
