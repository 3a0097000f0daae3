"""What importing the client brings into its user's process, each time in a process of its own."""

import subprocess
import sys

# It takes 0.03 s and 34 modules, a dozen of which are ours.
CPU_WITHIN_S = 0.1
MOST_MODULES = 50
SLOW = ("tensorflow", "numpy", "grpc", "pandas", "keras", "rich", "asyncio", "zmq", "msgpack")


def imported_by(program: str) -> set[str]:
    code = f"{program}\nimport sys\nprint(*sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_importing_the_client_is_cheap() -> None:
    assert imported_by("from modelpool.frontend.client import Client, AsyncClient").isdisjoint(SLOW)


def test_importing_the_client_is_quick() -> None:
    """By the CPU time of it, since others may have the CPUs; the best of a few, since caches may be theirs as well."""
    code = (
        "import sys, time; before = set(sys.modules); began = time.process_time()\n"
        "from modelpool.frontend.client import Client, AsyncClient\n"
        "print(time.process_time() - began, len(set(sys.modules) - before))"
    )
    command = [sys.executable, "-c", code]
    runs = [subprocess.run(command, capture_output=True, text=True, check=True).stdout.split() for _ in range(5)]
    assert min(float(cpu_s) for cpu_s, _ in runs) < CPU_WITHIN_S, runs
    assert {int(modules) <= MOST_MODULES for _, modules in runs} == {True}, runs


def test_a_client_leaves_no_trace_of_a_tensorflow_package() -> None:
    made = imported_by("from modelpool.frontend.client import Client\nClient('localhost:1').close()")
    assert {"numpy", "grpc", "tensorflow_serving.apis.predict_pb2"} <= made
    assert made.isdisjoint({"tensorflow", "pandas", "keras", "tensorflow.python", "rich", "zmq", "msgpack"})
