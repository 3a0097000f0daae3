"""Every promise of what happens when something dies, put to the test on real pools: a scene each, a table at the end.

`--short` plays the scenes in the few seconds that the test suite has. The exit code is 1 when a promise was broken.
Runs in the environment that `environment.py` makes.
"""

import argparse
import json
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import NoReturn

import chaos_many_kills
import chaos_memory
import chaos_models
import chaos_overload
import chaos_poison
import chaos_processes
import chaos_resources
import chaos_senders
import chaos_workers
from chaos_pool import BrokenPromise
from chaos_scene import Outcome, Scene, Stage, play

_GROUPS = (
    chaos_workers,
    chaos_memory,
    chaos_poison,
    chaos_processes,
    chaos_resources,
    chaos_senders,
    chaos_overload,
    chaos_many_kills,
)
SCENES: dict[str, Scene] = {name: scene for group in _GROUPS for name, scene in group.SCENES.items()}
# The scenes of `--short`.
SHORT = ("kills, retried once", "a poison request in a batch", "a frontend and a worker die at once")


def parse_options(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/chaos", description="Hurts pools, and checks what was promised.")
    parser.add_argument("--short", action="store_true", help=f"in seconds: {'; '.join(SHORT)}")
    parser.add_argument(
        "--scene", action="append", default=[], metavar="WORDS", help="those whose names have these words"
    )
    parser.add_argument("--list", action="store_true", help="name the scenes, and play none")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything there as well")
    args = parser.parse_args(argv)
    args.scenes = [name for name in (SHORT if args.short else SCENES) if not args.scene]
    args.scenes += [name for name in SCENES if any(words in name for words in args.scene)]
    if not args.scenes:
        parser.error(f"--scene: expected words of a scene's name, one of {'; '.join(SCENES)}")
    return args


def print_outcome(outcome: Outcome) -> None:
    state = f"skipped: {outcome.skipped}" if outcome.skipped else "BROKEN" if outcome.broken else "kept"
    print(f"{outcome.scene}: {state} ({outcome.took_s:.1f} s)")
    for check in outcome.checks:
        mark = {True: "kept  ", False: "BROKEN", None: "      "}[check.kept]
        print(f"  {mark}  {check.promise}: {check.seen}")
    sys.stdout.flush()


def print_table(outcomes: Sequence[Outcome]) -> None:
    """A line per scene, for people."""
    width = max(len(outcome.scene) for outcome in outcomes)
    print(f"\n{'SCENE':<{width}}  KEPT  BROKEN  SECONDS")
    for each in outcomes:
        kept = sum(check.kept is True for check in each.checks)
        counts = f"{'skipped':>12}" if each.skipped else f"{kept:>4}  {len(each.broken):>6}"
        print(f"{each.scene:<{width}}  {counts}  {each.took_s:>7.1f}")


def _end(*_: object) -> NoReturn:
    raise SystemExit("terminated")


def main() -> int:
    args = parse_options()
    if args.list:
        print("\n".join(SCENES))
        return 0
    signal.signal(signal.SIGTERM, _end)
    models = chaos_models.build()
    scratch = Path(tempfile.mkdtemp(prefix="mp-chaos-", dir="/tmp"))
    outcomes: list[Outcome] = []
    began_s = time.monotonic()
    try:
        for name in args.scenes:
            outcomes.append(play(name, SCENES[name], Stage(scratch, models, args.short), BrokenPromise))
            print_outcome(outcomes[-1])
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    print_table(outcomes)
    broken = sum(len(outcome.broken) for outcome in outcomes)
    print(f"{broken} promises broken, {time.monotonic() - began_s:.0f} s in all")
    if args.json:
        document = {"short": args.short, "scenes": [asdict(outcome) for outcome in outcomes]}
        args.json.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
