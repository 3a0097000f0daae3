"""`scripts/check`, then pytest with the given arguments; ends with pytest's exit code. `--no-check`: pytest alone.

Without a file or test among the arguments the whole suite runs: as many files at a time as there are CPUs, since most
tests wait for processes, and afterwards, one by one, the tests that measure (marker `alone`). What failed beside
others has one more try by itself, and is named: many wait for a process or a deadline, and a busy machine is late for
both. With failed checks or tests the rest runs all the same, so that one run tells everything; the exit code is then
not 0.
"""

import os
import subprocess
import sys
from collections.abc import Sequence

import checks

# More files at a time need memory: each may have a pool, of some 500 MB.
_MOST_AT_A_TIME = 4
_SOME_FAILED = 1
_SIDE_BY_SIDE, _ALONE = ("-m", "not alone"), ("-m", "alone")


def main() -> int:
    arguments = sys.argv[1:]
    check = "--no-check" not in arguments
    failed = checks.run_checks() if check else []
    wanted = [argument for argument in arguments if argument != "--no-check"]
    codes = [_run(stage, wanted) for stage in _stages(wanted)]
    if failed:
        print("FAILED checks: " + ", ".join(failed), flush=True)
    return max(codes) or (1 if failed else 0)


def _run(stage: Sequence[str], wanted: Sequence[str]) -> int:
    """One stage; what failed in it once more with nothing beside it."""
    code = _pytest(stage, wanted)
    if code != _SOME_FAILED or not stage:
        return code
    print("== once more, one by one: what failed above", flush=True)
    return _pytest(["--last-failed", "--last-failed-no-failures=none"], wanted)


def _stages(wanted: Sequence[str]) -> list[list[str]]:
    """What each run of pytest is told beside the given arguments."""
    at_a_time = min(len(os.sched_getaffinity(0)), _MOST_AT_A_TIME)
    if at_a_time == 1 or not all(argument.startswith("-") for argument in wanted):
        return [[]]
    return [[*_SIDE_BY_SIDE, "-n", str(at_a_time), "--dist", "loadfile"], [*_ALONE]]


def _pytest(stage: Sequence[str], wanted: Sequence[str]) -> int:
    return subprocess.run([sys.executable, "-m", "pytest", *stage, *wanted], cwd=checks.ROOT, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
