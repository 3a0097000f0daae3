"""The client and its commands against a real pool; and beside the real TensorFlow in one process."""

import asyncio
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

from modelpool.frontend.client import AsyncClient, Client, InvalidArgument, NotFound
from tests.e2e.plain_models import DTYPES
from tests.e2e.pool import MODELPOOL, Pool, model_config, running_pool

NAMES = ("half_plus_two", "dtypes", "sum")


@pytest.fixture(scope="module")
def config(models: Path) -> str:
    return model_config({name: models / name for name in NAMES})


@pytest.fixture(scope="module")
def pool(config: str) -> Iterator[Pool]:
    with running_pool(config) as pool:
        pool.wait_available(*NAMES)
        yield pool


@pytest.fixture(scope="module")
def client(pool: Pool) -> Iterator[Client]:
    with Client(f"127.0.0.1:{pool.grpc_port}") as client:
        yield client


def test_literals(client: Client) -> None:
    y = client.predict("half_plus_two", {"x": [1.0, 2.0]})["y"]
    np.testing.assert_array_equal(y, np.array([2.5, 3.0], np.float32), strict=True)
    assert client.predict("half_plus_two", [4])["y"].tolist() == [4.0]
    assert client.predict("sum", {"a": 1, "b": 2.5}, outputs=["total"]) == {"total": np.float32(3.5)}


@pytest.mark.parametrize("dtype", [name for name in DTYPES if name != "string"])
def test_arrays_of_every_dtype(client: Client, dtype: str) -> None:
    name = dtype.removeprefix("q") if dtype.startswith("q") else dtype
    array = np.array([[0], [1], [0], [1]]).astype(getattr(ml_dtypes, name, None) or np.dtype(name))
    if dtype == name:
        np.testing.assert_array_equal(client.predict("dtypes", {"x": array}, signature=dtype)["y"], array, strict=True)
    # A bare value takes the signature's dtype, also where numpy has none of that name.
    got = client.predict("dtypes", array, signature=dtype)["y"]
    assert got.tobytes() == array.tobytes()


def test_strings(client: Client) -> None:
    assert client.predict("dtypes", ["a\0", "ä"], signature="string")["y"].tolist() == [b"a\0", "ä".encode()]


def test_examples(client: Client) -> None:
    examples = [{"x": 1.0}, {"x": [2.0]}]
    assert client.regress("half_plus_two", examples, signature="regress_x_to_y").tolist() == [2.5, 3.0]
    found = client.classify("half_plus_two", examples, signature="classify_x_to_y")
    assert found == [[("", 2.5)], [("", 3.0)]]


def test_metadata_and_status(client: Client) -> None:
    found = client.metadata("half_plus_two")
    spec = found.signatures["serving_default"].inputs["x"]
    assert (found.version, spec.dtype, spec.shape) == (123, "float32", (None, 1))
    (status,) = client.status("half_plus_two")
    assert (status.version, status.available) == (123, True)


def test_refusals(client: Client) -> None:
    with pytest.raises(NotFound, match="Servable not found for request: Latest\\(nonesuch\\)"):
        client.predict("nonesuch", [1.0])
    with pytest.raises(InvalidArgument):
        client.predict("half_plus_two", {"x": np.zeros(1, np.float64)})


def test_asyncio(pool: Pool) -> None:
    async def use() -> list[list[float]]:
        async with AsyncClient(f"127.0.0.1:{pool.grpc_port}") as client:
            many = await asyncio.gather(*(client.predict("half_plus_two", [float(n)]) for n in range(50)))
        return [each["y"].tolist() for each in many]

    assert asyncio.run(use()) == [[n / 2 + 2] for n in range(50)]


# -- commands ------------------------------------------------------------------------------------------------------


def run(pool: Pool, *arguments: str, stdin: str = "") -> tuple[int, str, str]:
    """Exit code, stdout, stderr of `modelpool ... --server=<the pool>`."""
    command = [str(MODELPOOL), *arguments, f"--server=127.0.0.1:{pool.grpc_port}"]
    done = subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=60, check=False)
    return done.returncode, done.stdout, done.stderr


def test_predict_command(pool: Pool, tmp_path: Path) -> None:
    answer = (0, "y float32 [2]\n[2.5, 3. ]\n", "")
    body = '{"x": [1.0, 2.0]}'
    file, arrays = tmp_path / "inputs.json", tmp_path / "inputs.npz"
    file.write_text(body)
    np.savez(arrays, x=np.array([1, 2], np.float32))
    assert run(pool, "predict", "half_plus_two", f"--inputs={body}") == answer
    assert run(pool, "predict", "half_plus_two", "--inputs", "[1, 2]", "--version=123") == answer
    assert run(pool, "predict", "half_plus_two", f"--inputs=@{file}") == answer
    assert run(pool, "predict", "half_plus_two", f"--inputs={arrays}") == answer
    assert run(pool, "predict", "half_plus_two", stdin=body) == answer


def test_predict_command_for_programs(pool: Pool) -> None:
    code, out, _ = run(pool, "predict", "half_plus_two", "--inputs=[1, 2]", "--json")
    assert (code, json.loads(out)) == (0, {"model_version": 123, "outputs": {"y": [2.5, 3.0]}})
    code, out, _ = run(
        pool, "predict", "dtypes", "--signature=string", "--json", '--inputs=["a", {"b64": "/w=="}, {"b64": "Yg=="}]'
    )
    assert (code, json.loads(out)["outputs"]) == (0, {"y": ["a", {"b64": "/w=="}, "b"]})


def test_metadata_command(pool: Pool) -> None:
    code, out, _ = run(pool, "metadata", "sum")
    assert code == 0
    lines = [line.split() for line in out.splitlines()]
    assert lines[0] == ["sum", "version", "1"]
    assert ["serving_default", "in", "a", "float32", "any", "tensorflow/serving/predict"] in lines
    assert ["out", "total", "float32", "any"] in lines
    code, out, _ = run(pool, "metadata", "half_plus_two", "--json")
    assert json.loads(out)["signatures"]["serving_default"]["inputs"]["x"]["shape"] == [None, 1]


def test_reload_command(pool: Pool, config: str, tmp_path: Path) -> None:
    good, bad = tmp_path / "good.config", tmp_path / "bad.config"
    good.write_text(config)
    bad.write_text('model_config_list { config { name: "a" base_path: "a" model_platform: "tensorflow" } }')
    assert run(pool, "reload", str(good)) == (0, "the config is in force\n", "")
    code, out, err = run(pool, "reload", str(bad))
    assert (code, out) == (1, "")
    assert err.startswith("modelpool reload: INVALID_ARGUMENT: Expected model a to have an absolute path or URI")


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (["predict", "nonesuch", "--inputs={}"], 1, "NOT_FOUND: Servable not found for request: Latest(nonesuch)"),
        (["metadata", "nonesuch"], 1, "NOT_FOUND: Servable not found for request: Latest(nonesuch)"),
        (["predict", "half_plus_two", "--inputs={"], 2, "--inputs: "),
        (["predict", "half_plus_two", "--inputs=@/nonesuch"], 2, "No such file"),
        (["predict", "half_plus_two", '--inputs={"x": ["b64"], "y": {"b64": "?"}}'], 2, "not base64"),
        (["predict", "half_plus_two", '--inputs={"x": [[1], [1, 2]]}'], 2, "input 'x'"),
        (["predict", "--inputs=[1]"], 2, "the following arguments are required: MODEL"),
        (["predict", "m", "--version=1", "--label=a"], 2, "not allowed with argument"),
        (["metadata", "m", "--nonesuch"], 2, "unrecognized arguments: --nonesuch"),
        (["reload", "/nonesuch"], 2, "No such file"),
    ],
)
def test_commands_that_fail(pool: Pool, arguments: list[str], code: int, text: str) -> None:
    got, out, err = run(pool, *arguments)
    assert (got, out) == (code, "")
    assert text in err


# -- beside TensorFlow ---------------------------------------------------------------------------------------------

_BESIDE_TENSORFLOW = """
import threading

def client():
    from modelpool.frontend.client import Client
    Client("localhost:1").close()
    from modelpool.frontend.client.inputs import encode
    return encode("x", [1.0, 2.0], None)

def tensorflow():
    import tensorflow
    return tensorflow

def both():
    import grpc, numpy
    threads = [threading.Thread(target=each) for each in (tensorflow, client)]
    for each in threads: each.start()
    for each in threads: each.join()

{order}
tf, proto = tensorflow(), client()
assert type(proto) is type(tf.make_tensor_proto([1.0]))
assert tf.make_ndarray(proto).tolist() == [1.0, 2.0]
assert float(tf.reduce_sum(tf.constant([1.0, 2.0]))) == 3.0
assert tf.io.parse_tensor(tf.io.serialize_tensor([1]), tf.int32).numpy().tolist() == [1]
from tensorflow_serving.apis import prediction_service_pb2_grpc
"""


@pytest.mark.parametrize("order", ["client()", "tensorflow()", "both()"])
def test_the_client_and_tensorflow_in_one_process(order: str) -> None:
    """Whichever is imported first, and at the same time by two threads, both work, on the same message classes."""
    program = _BESIDE_TENSORFLOW.format(order=order)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert "Exception" not in done.stderr
