"""The long form of tests/e2e/test_fuzz.py: half of the bodies over gRPC, half over REST; pytest's exit code."""

import argparse
import subprocess
import sys

import checks


def main() -> int:
    parser = argparse.ArgumentParser(prog="scripts/fuzz", description=__doc__)
    parser.add_argument("count", nargs="?", type=int, default=100_000, help="how many bodies in all")
    count: int = parser.parse_args().count
    pytest = [sys.executable, "-m", "pytest", "tests/e2e/test_fuzz.py", "-v", "--timeout=3600"]
    return subprocess.run([*pytest, f"--fuzz-bodies={count // 2}"], cwd=checks.ROOT, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
