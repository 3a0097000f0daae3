"""Models with big variables answer the same whoever restored them; what is damaged fails as TensorFlow has it."""

import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.e2e.big_models import ANSWER
from tests.e2e.eventually import eventually
from tests.e2e.pool import Pool, model_config, predict_request, running_pool
from tests.e2e.tensor_proto import tensor, values

WITHIN_S = 60.0
INDEX = "variables/variables.index"

# How many tensors are restored in pieces; 0: all by TensorFlow.
GOOD = {"big_tf1": 2, "big_sharded": 2, "big_tf2": 3, "big_wide": 2, "big_parts": 0, "big_references": 0}


def data_of(version: Path) -> Path:
    """The file with the big ones."""
    return max((version / "variables").glob("variables.data-*"), key=lambda path: path.stat().st_size)


def replace(path: Path, data: bytes) -> None:
    path.unlink()  # it may have other names
    path.write_bytes(data)


def flip(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    replace(path, data)


def cut(path: Path) -> None:
    replace(path, path.read_bytes()[: path.stat().st_size // 2])


DAMAGE: dict[str, tuple[Callable[[Path], None], str, str]] = {
    "flipped": (
        lambda path: flip(data_of(path), 4_000_000),
        "DATA_LOSS",
        r"Checksum does not match: stored \d+ vs. calc",
    ),
    "cut": (lambda path: cut(data_of(path)), "OUT_OF_RANGE", "Read less bytes than requested"),
    "index": (lambda path: flip(path / INDEX, 100), "DATA_LOSS", "Unable to read file .* Perhaps the file is corrupt"),
}


@pytest.fixture(scope="module")
def pool(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pool]:
    root = tmp_path_factory.mktemp("damaged")
    for kind in ("big_tf1", "big_tf2"):
        for name, (damage, _, _) in DAMAGE.items():
            shutil.copytree(models / kind, root / f"{kind}_{name}")
            damage(root / f"{kind}_{name}" / "1")
    places = {name: models / name for name in GOOD} | {path.name: path for path in root.iterdir()}
    with running_pool(model_config(places), "--max_num_load_retries=0") as pool:
        yield pool


def restored_in_pieces(pool: Pool, model: str) -> int:
    """How many tensors the model's worker says that it restored so; none where TensorFlow restored all."""
    said = (line for line in pool.log.splitlines() if f"[{model}/1#" in line and "variables restored" in line)
    found = re.search(r"variables restored in pieces tensors=(\d+)", next(said, ""))
    return int(found[1]) if found else 0


@pytest.mark.parametrize("model", GOOD)
def test_the_same_answers(pool: Pool, model: str) -> None:
    pool.wait_available(model)
    reply = pool.predict(predict_request(model, {"x": tensor([1.0, 2.0])}))
    assert values(reply.outputs["y"]) == [ANSWER + 0.5, ANSWER + 1.0]
    assert restored_in_pieces(pool, model) == GOOD[model]


@pytest.mark.parametrize("kind", ["big_tf1", "big_tf2"])
@pytest.mark.parametrize("name", DAMAGE)
def test_damaged_files(pool: Pool, kind: str, name: str) -> None:
    _, code, text = DAMAGE[name]
    model = f"{kind}_{name}"
    eventually(lambda: pool.model(model)["versions"][0]["error"]["code"] != "OK", WITHIN_S)
    error = pool.model(model)["versions"][0]["error"]
    assert error["code"] == code
    assert re.search(text, error["message"])
