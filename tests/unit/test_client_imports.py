"""What importing the client brings into its user's process, each time in a process of its own."""

import subprocess
import sys

WITHIN_S = 0.2
SLOW = ("tensorflow", "numpy", "grpc", "pandas", "keras", "rich", "asyncio", "zmq", "msgpack")


def imported_by(program: str) -> set[str]:
    code = f"{program}\nimport sys\nprint(*sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_importing_the_client_is_cheap() -> None:
    assert imported_by("from modelpool.frontend.client import Client, AsyncClient").isdisjoint(SLOW)


def test_importing_the_client_is_quick() -> None:
    """The best of a few, since a machine may be busy with something else for a moment."""
    code = (
        "import time; began = time.perf_counter(); from modelpool.frontend.client import Client; "
        "print(time.perf_counter() - began)"
    )
    command = [sys.executable, "-c", code]
    took_s = [float(subprocess.run(command, capture_output=True, text=True, check=True).stdout) for _ in range(5)]
    assert min(took_s) < WITHIN_S, took_s


def test_a_client_leaves_no_trace_of_a_tensorflow_package() -> None:
    made = imported_by("from modelpool.frontend.client import Client\nClient('localhost:1').close()")
    assert {"numpy", "grpc", "tensorflow_serving.apis.predict_pb2"} <= made
    assert made.isdisjoint({"tensorflow", "pandas", "keras", "tensorflow.python", "rich", "zmq", "msgpack"})
