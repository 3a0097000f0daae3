"""The command line of `scripts/bench`."""

import argparse
from collections.abc import Sequence
from pathlib import Path

import bench_contenders
from bench_plan import CONNECTIONS, GENERATORS
from bench_workloads import WORKLOADS

WHAT = {
    "serving": "throughput and latency, closed loop, against the plain server",
    "open": "latency at a share of the capacity, from the time at which each request was meant to be sent",
    "targets": "the table of what must be reached, by serving, open, tenants and growth; some in more rounds",
    "profile": "where the microseconds of a request go",
    "tenants": "a tenant's latency while another is flooded",
    "tensors": "what a payload costs between two processes, by the socket and through shared memory",
    "growth": "memory over many requests",
    "metrics": "what metrics cost at peak: the pool with and without, and the code by itself",
    "replicas": "two replicas on a CPU each against one on one, and one killed under load",
    "json": "CPU time of a worker's JSON by kinds of bodies and replies, without a server",
    "limits": "how far what is not ours lets the targets be: its parts by themselves, as a chain, and in an open loop",
    "footprint": "start to the first answer, memory of each process",
    "start": "many models in one pool",
    "neighbours": "latency while another model loads",
    "unload": "what unloads give back",
}
IN_FLIGHT = (1, 8, 32, 128)
# Of `--quick`: how much less of everything.
QUICK = {"rounds": 1, "duration_s": 0.5, "warmup_s": 0.3, "in_flight": [1, 32], "starts": 1, "requests": 500}
_POSITIVE = (
    "rounds",
    "duration_s",
    "starts",
    "models",
    "plain_processes",
    "big_mb",
    "cycles",
    "limit_s",
    "share",
    "requests",
)


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The options, checked. Ends the program when they are wrong."""
    parser = _parser()
    args = parser.parse_args(argv)
    if args.quick:
        for name, value in QUICK.items():
            if getattr(args, name) == parser.get_default(name):
                setattr(args, name, value)
    for name, known in (("what", WHAT), ("workloads", WORKLOADS)):
        if unknown := set(getattr(args, name)) - set(known):
            parser.error(f"--{name}: {', '.join(sorted(unknown))}: not one of {', '.join(known)}")
    for name in _POSITIVE:
        if getattr(args, name) <= 0:
            parser.error(f"--{name} must be positive")
    if "limits" in args.what and args.frontends > 1:
        parser.error("--what=limits measures one frontend's parts; --frontends must be 1")
    if args.share == 1:
        parser.error("--share must be below 1, or a rate in requests/s above it: all that a server can do is too much")
    if args.engines is None:
        args.engines = list(bench_contenders.default_engines())
    return args


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="scripts/bench",
        description="The pool beside a plain server, and by itself. " + "; ".join(f"{k}: {v}" for k, v in WHAT.items()),
    )
    add = parser.add_argument
    add("--what", type=_words, default=["serving"], metavar="WHAT,...", help=f"of {', '.join(WHAT)} (serving)")
    add("--workloads", type=_words, default=["tiny"], metavar="NAME,...", help=f"of {', '.join(WORKLOADS)} (tiny)")
    add("--in_flight", type=_numbers, default=list(IN_FLIGHT), metavar="N,...", help="closed loops (1,8,32,128)")
    add("--engines", type=_words, metavar="ENGINE,...", help="envoy, grpcio; the first also with batching (envoy)")
    add("--no_batching", action="store_true", help="leave out the pool with batching auto")
    add("--no_plain", action="store_true", help="leave out the plain server and the loop")
    add("--replicas", type=int, default=1, help="conv also on so many replicas (1: not)")
    add("--frontends", type=int, default=1, help="of each pool (1)")
    add("--generator", choices=GENERATORS, default="auto", help="of closed loops; h2load where it is installed (auto)")
    add("--connections", type=int, default=CONNECTIONS, help="gRPC connections of a generator, at most (4)")
    add("--share", type=float, default=0.7, help="open, limits: of each one's capacity then; above 1: requests/s (0.7)")
    add("--arrivals", choices=("poisson", "constant"), default="poisson", help="open, limits: their times (poisson)")
    add("--seed", type=int, default=1, help="of the arrivals (1)")
    add("--rounds", type=int, default=5, help="turns of each contender, load or condition (5)")
    add("--duration_s", type=float, default=3.0, help="of each turn (3)")
    add("--warmup_s", type=float, default=1.0, help="before each turn (1)")
    add("--requests", type=int, default=30_000, help="growth: how many, of image (30000)")
    add("--starts", type=int, default=3, help="footprint: measured starts of each server (3)")
    add("--models", type=int, default=50, help="start: models in one pool (50)")
    add("--plain_processes", type=int, default=4, help="start: plain processes measured (4)")
    add("--big_mb", type=int, default=500, help="neighbours, unload: weights of the big model (500)")
    add("--cycles", type=int, default=200, help="unload: loads and unloads of a tiny model (200)")
    add("--limit_s", type=float, default=240.0, help="start, neighbours, unload: most time of each (240)")
    add("--quick", action="store_true", help="a smoke run of less than a minute; no figures to quote")
    add("--json", type=Path, metavar="FILE", help="write everything there as well")
    add("--picture", type=Path, metavar="FILE", help="draw the closed loops as SVG")
    add("--report", type=Path, metavar="FILE", help="measure nothing: tables and picture of such a JSON file")
    return parser


def _words(text: str) -> list[str]:
    return [word for word in text.split(",") if word]


def _numbers(text: str) -> list[int]:
    numbers = [int(word) for word in text.split(",")]
    if min(numbers) < 1:
        raise argparse.ArgumentTypeError("at least 1 each")
    return numbers
