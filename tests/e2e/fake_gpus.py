"""`modelpool` on a host whose GPUs are scripted: run as a program, with a file that says how they are just now.

The file is JSON, for each GPU {"uuid", "error" (a code of pynvml, 0 for none), "xid" (0 for none; told once)}. Workers
are real and pinned to UUIDs that no CUDA knows, so that TensorFlow runs them on the CPU.
"""

import json
import os
import sys
from pathlib import Path
from typing import Any

from modelpool.supervisor import main, nvml
from tests.fake_nvml import GIB, FakeGpu, FakeLibrary

STATE = "MODELPOOL_TEST_GPUS"


class FileLibrary(FakeLibrary):
    """Reads the file at each look."""

    def __init__(self, path: Path) -> None:
        self._path = path
        super().__init__(*(FakeGpu(state["uuid"], 4 * GIB, driver_bytes=GIB // 4) for state in self._states()))

    def nvmlDeviceGetCount(self) -> int:
        for gpu, state in zip(self.gpus, self._states(), strict=True):
            gpu.error = state["error"]
            if state["xid"] and gpu.ecc == 0:
                gpu.ecc = 1
                self.xid(gpu, state["xid"])
        return super().nvmlDeviceGetCount()

    def _states(self) -> list[dict[str, Any]]:
        states: list[dict[str, Any]] = json.loads(self._path.read_text("utf-8"))
        return states


def run() -> int:
    library = FileLibrary(Path(os.environ[STATE]))
    real = nvml.RealNvml
    main.RealNvml = lambda: real(library)  # type: ignore[attr-defined, misc, assignment]
    return main.run(sys.argv[1:])


if __name__ == "__main__":
    sys.exit(run())
