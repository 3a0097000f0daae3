"""What importing the client brings into its user's process, each time in a process of its own."""

import subprocess
import sys

SLOW = ("tensorflow", "numpy", "grpc", "pandas", "keras", "rich", "asyncio", "zmq", "msgpack")


def imported_by(program: str) -> set[str]:
    code = f"{program}\nimport sys\nprint(*sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_importing_the_client_is_cheap() -> None:
    assert imported_by("from modelpool.frontend.client import Client, AsyncClient").isdisjoint(SLOW)


def test_a_client_leaves_no_trace_of_a_tensorflow_package() -> None:
    made = imported_by("from modelpool.frontend.client import Client\nClient('localhost:1').close()")
    assert {"numpy", "grpc", "tensorflow_serving.apis.predict_pb2"} <= made
    assert made.isdisjoint({"tensorflow", "pandas", "keras", "tensorflow.python", "rich", "zmq", "msgpack"})
