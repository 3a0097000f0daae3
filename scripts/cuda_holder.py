"""A process that holds GPU memory by the CUDA driver alone (libcuda by ctypes: no framework is needed).

`CudaHolder` starts this file in a process of its own, `cuda_holder.py BYTES`, pinned to one device.
"""

import ctypes
import os
import select
import signal
import subprocess
import sys

FIRST_WORDS_S = 60.0
_GONE_S = 60.0
_NO_DEVICE = 100  # CUDA_ERROR_NO_DEVICE


class HolderError(RuntimeError):
    """The process does not hold the memory, or does not go."""


class CudaHolder:
    """Memory of the device of this UUID, held until `kill`.

    Raises HolderError when it is not held within `FIRST_WORDS_S`.
    """

    def __init__(self, uuid: str, size_bytes: int) -> None:
        environment = {**os.environ, "CUDA_VISIBLE_DEVICES": uuid}
        self._process = subprocess.Popen(
            [sys.executable, __file__, str(size_bytes)],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.pid = self._process.pid
        said = self._first_words()
        if said[:1] != ["holds"]:
            self.kill()
            raise HolderError(" ".join(said) or "it ended")
        self.uuid = said[1] if len(said) > 1 else ""
        """What CUDA calls the one device that it sees; "" where it does not say."""

    def _first_words(self) -> list[str]:
        assert self._process.stdout is not None
        if not select.select([self._process.stdout], [], [], FIRST_WORDS_S)[0]:
            return [f"it says nothing within {FIRST_WORDS_S:g} s"]
        return self._process.stdout.readline().split()

    def kill(self) -> None:
        """SIGKILL, and wait until the process is gone. Raises HolderError when it stays."""
        self._process.send_signal(signal.SIGKILL)
        try:
            self._process.wait(_GONE_S)
        except subprocess.TimeoutExpired as error:
            raise HolderError(f"process {self.pid} was killed and is there after {_GONE_S:g} s") from error
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                stream.close()


def hold(size_bytes: int) -> int:
    """In the child: make a context on the only visible device, take memory, and wait for the end of standard input."""
    cuda = ctypes.CDLL("libcuda.so.1")
    count, device, context, pointer = ctypes.c_int(), ctypes.c_int(), ctypes.c_void_p(), ctypes.c_uint64()
    code = cuda.cuInit(0) or cuda.cuDeviceGetCount(ctypes.byref(count))
    if code not in {0, _NO_DEVICE}:
        print(f"cuInit failed with {code}", flush=True)
        return 1
    if count.value != 1:
        print(f"sees {count.value} devices", flush=True)
        return 1
    for name, *arguments in (
        ("cuDeviceGet", ctypes.byref(device), 0),
        ("cuCtxCreate_v2", ctypes.byref(context), 0, device),
        ("cuMemAlloc_v2", ctypes.byref(pointer), ctypes.c_size_t(size_bytes)),
        ("cuMemsetD8_v2", pointer, ctypes.c_ubyte(1), ctypes.c_size_t(size_bytes)),
    ):
        code = getattr(cuda, str(name))(*arguments)
        if code:
            print(f"{name} failed with {code}", flush=True)
            return 1
    print("holds", _uuid(cuda, device), flush=True)
    sys.stdin.read()
    return 0


def _uuid(cuda: ctypes.CDLL, device: ctypes.c_int) -> str:
    """In NVML's form. For a MIG instance CUDA's newer call says the instance's, under the same "GPU-" or "MIG-"."""
    raw = (ctypes.c_ubyte * 16)()
    if cuda.cuDeviceGetUuid_v2(ctypes.byref(raw), device):
        return ""
    text = bytes(raw).hex()
    return "-".join((text[:8], text[8:12], text[12:16], text[16:20], text[20:]))


if __name__ == "__main__":
    sys.exit(hold(int(sys.argv[1])))
