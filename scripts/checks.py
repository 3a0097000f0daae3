"""Lint, format, types and import contracts, by the tools of the environment that runs this. Names what failed."""

import os
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
COMPONENTS = ("supervisor", "worker", "frontend")
TOOLS = Path(sys.executable).parent


def link_components() -> None:
    """The view `build/ns/modelpool/*` of the component folders under their import names, which mypy needs."""
    view = ROOT / "build" / "ns" / "modelpool"
    view.mkdir(parents=True, exist_ok=True)
    for component in COMPONENTS:
        link = view / component
        if not link.exists():
            link.unlink(missing_ok=True)
            link.symlink_to(Path("../../..") / component)


def steps() -> dict[str, list[str]]:
    """Every check by its name: a command for the repository's root."""
    scripts = sorted(str(path.relative_to(ROOT)) for path in (ROOT / "scripts").glob("*.py"))
    packages = [word for component in COMPONENTS for word in ("-p", f"modelpool.{component}")]
    return {
        "ruff check": [str(TOOLS / "ruff"), "check", "."],
        "ruff format": [str(TOOLS / "ruff"), "format", "--check", "."],
        "mypy of the components": [sys.executable, "-m", "mypy", *packages],
        "mypy of the scripts": [sys.executable, "-m", "mypy", *scripts],
        "import contracts": [str(TOOLS / "lint-imports")],
    }


def run_checks() -> list[str]:
    """Run every check, also after one failed; the names of those that failed."""
    link_components()
    environment = dict(os.environ, MYPYPATH=str(ROOT / "scripts"))
    failed = []
    for name, command in steps().items():
        started = time.monotonic()
        print(f"== {name}", flush=True)
        if subprocess.run(command, cwd=ROOT, env=environment, check=False).returncode != 0:
            failed.append(name)
            print(f"== {name}: FAILED after {time.monotonic() - started:.1f} s", flush=True)
    return failed


def main() -> int:
    failed = run_checks()
    print("FAILED: " + ", ".join(failed) if failed else "All checks passed.", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
