"""`scripts/check`, then pytest with the given arguments; ends with pytest's exit code. `--no-check`: pytest alone.

With failed checks pytest runs all the same, so that one run tells everything; the exit code is then not 0.
"""

import subprocess
import sys

import checks


def main() -> int:
    arguments = sys.argv[1:]
    check = "--no-check" not in arguments
    failed = checks.run_checks() if check else []
    pytest = [sys.executable, "-m", "pytest", *(a for a in arguments if a != "--no-check")]
    code = subprocess.run(pytest, cwd=checks.ROOT, check=False).returncode
    if failed:
        print("FAILED checks: " + ", ".join(failed), flush=True)
    return code or (1 if failed else 0)


if __name__ == "__main__":
    sys.exit(main())
