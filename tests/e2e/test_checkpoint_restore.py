"""Variables restored in pieces, or left to TensorFlow as a whole; the scenes are `restore_scenes`."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
UNSET = "FailedPreconditionError"


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """What came of each scene, by its name."""
    command = [sys.executable, "-m", "tests.e2e.restore_scenes", str(tmp_path_factory.mktemp("scenes"))]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def in_pieces(tensors: int, elements: int, *values: float) -> list[Any]:
    return [True, f"variables restored in pieces tensors={tensors} bytes={4 * elements}", list(values)]


def left(why: str, variables: int = 1) -> list[Any]:
    return [False, f"variables restored by TensorFlow prefix=PREFIX why='{why}'", [UNSET] * variables]


def test_what_is_not_big_and_whole_comes_from_tensorflow(played: Any) -> None:
    assert played["some_of_an_operation"] == in_pieces(1, 2000, 1.0, 2.0, 3.0)


def test_names_that_are_not_static_are_read_by_their_own_operation(played: Any) -> None:
    with_others, alone, by_tensorflow = played["names_that_are_not_static"]
    assert with_others == in_pieces(1, 2000, 1.0, 2.0)
    assert alone == left("UnusualError: the graph reads no big tensor by itself", 2)
    assert by_tensorflow == [None, [1.0, 2.0]]


def test_an_operation_that_waits_for_a_read_is_left_to_tensorflow(played: Any) -> None:
    restored, by_tensorflow = played["what_waits_for_a_read"]
    assert restored == left("UnusualError: after waits for a read and not for its values")
    assert by_tensorflow == [None, [1.0]]


def test_a_run_that_fails_is_done_again_by_tensorflow(played: Any) -> None:
    restored, by_tensorflow = played["a_run_that_fails"]
    assert restored == left("InternalError: not now")
    assert by_tensorflow == [None, [1.0]]


def test_what_fails_in_the_graph_fails_by_tensorflow_too(played: Any) -> None:
    (done, said, values), by_tensorflow = played["a_shape_that_is_wrong"]
    assert (done, values) == (False, [UNSET])
    assert "why='InvalidArgumentError" in said or 'why="InvalidArgumentError' in said
    assert by_tensorflow == ["InvalidArgumentError", [UNSET]]


def test_wide_tensors_are_read_at_the_same_time(played: Any) -> None:
    assert played["side_by_side"] == in_pieces(3, 12_000, 1.0, 2.0, 3.0)


def test_damage_beside_what_is_good(played: Any) -> None:
    restored, still_there, error = played["damage_beside_what_is_good"]
    assert restored == left("DamagedError: the checksum of a tensor is wrong", 2)
    assert still_there == [0, 0]
    assert error == "DataLossError"
