"""Models that only tests need, built once into `build/test-models/<digest of the builders>`.

`test_models()` is for the tests' process and builds by a process of its own, this module run as a program; there alone
the builders, by kind in a module each, import TensorFlow. All models are whole SavedModels below
`<directory>/<name>/<version>`, made as the demo models are.
"""

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path

from tests.e2e import big_models, custom_op_models, extra_file_models, plain_models, tflite_models

ROOT = Path(__file__).resolve().parent.parent.parent
SCRIPTS = ROOT / "scripts"
_BUILDERS = (plain_models, extra_file_models, tflite_models, big_models)


def test_models() -> Path:
    """The directory of all models, built first where that has not been done with these very builders."""
    kinds = (*_BUILDERS, custom_op_models)
    sources = (Path(__file__), *(Path(each.__file__) for each in kinds), SCRIPTS / "demo_models.py")
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in sources)).hexdigest()[:16]
    directory = ROOT / "build" / "test-models" / digest
    directory.mkdir(parents=True, exist_ok=True)
    lock = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (directory / "complete").exists():
            command = [sys.executable, "-m", "tests.e2e.models", str(directory)]
            done = subprocess.run(
                command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
            )
            assert done.returncode == 0, f"the test models could not be built:\n{done.stdout}"
    finally:
        os.close(lock)
    return directory


test_models.__test__ = False  # type: ignore[attr-defined]  # a function, not a test


def _build_all(directory: Path) -> None:
    """In the process that builds."""
    import demo_models

    demo_models.build_all(directory)
    builders = {name: build for kind in _BUILDERS for name, build in kind.BUILDERS.items()}
    if shutil.which("g++"):
        library = directory / custom_op_models.LIBRARY
        builders |= {name: partial(build, library=library) for name, build in custom_op_models.BUILDERS.items()}
    for name, build in builders.items():
        demo_models.publish_version(directory / name, "1", build)
    for number in plain_models.NUMBERED_VERSIONS:
        build_numbered = partial(plain_models.build_numbered, number=number)
        demo_models.publish_version(directory / "numbered", str(number), build_numbered)
    (directory / "empty").mkdir(exist_ok=True)
    (directory / "complete").touch()


if __name__ == "__main__":
    sys.path.insert(0, str(SCRIPTS))
    _build_all(Path(sys.argv[1]))
