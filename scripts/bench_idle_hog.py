"""A load on one CPU at idle priority (SCHED_IDLE), until whoever started it is gone. Says when it is at it."""

import os

ROUNDS = 100_000


def main() -> None:
    os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    parent = os.getppid()
    print("at it", flush=True)
    while os.getppid() == parent:
        for _ in range(ROUNDS):
            pass


if __name__ == "__main__":
    main()
