"""The long form of tests/e2e/test_fuzz.py: half of the bodies over gRPC, half over REST; pytest's exit code.

And of tests/unit/test_wire_fuzz.py, which compares what is read by hand with what the protobuf library reads.
"""

import argparse
import subprocess
import sys

import checks

_TESTS = ("tests/unit/test_wire_fuzz.py", "tests/e2e/test_fuzz.py")


def main() -> int:
    parser = argparse.ArgumentParser(prog="scripts/fuzz", description=__doc__)
    parser.add_argument("count", nargs="?", type=int, default=100_000, help="how many bodies in all")
    count: int = parser.parse_args().count
    pytest = [sys.executable, "-m", "pytest", *_TESTS, "-v", "--timeout=3600", "--hypothesis-profile=searching"]
    return subprocess.run([*pytest, f"--fuzz-bodies={count // 2}"], cwd=checks.ROOT, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
