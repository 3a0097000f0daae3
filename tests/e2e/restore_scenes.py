"""Scenes of `worker.checkpoint_restore` on graphs made for them; a program, since they need TensorFlow.

`python -m tests.e2e.restore_scenes DIRECTORY` plays all and prints what came of each, as JSON by its name. What is big,
and what is read side by side, is small here.
"""

import json
import logging
import os
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import tensorflow as tf
from tensorflow.core.protobuf import meta_graph_pb2, saver_pb2

from modelpool.worker import checkpoint_restore
from modelpool.worker.checkpoint_data import DataFiles
from modelpool.worker.checkpoint_index import Entry

# Elements: of a tensor that is left to TensorFlow, of a big one, and of one that is read beside others.
SMALL, BIG, WIDE = 3, 2000, 5000
_FLOAT_BYTES = 4
_BIG_BYTES = BIG * _FLOAT_BYTES
_MEET_WITHIN_S = 30.0

Read = tuple[str, str, int]
"""The key, the part of the tensor (empty: all), and how many elements the variable has."""
Names = Callable[[list[str]], Any]
v1 = tf.compat.v1


class Model:
    """A checkpoint of tensors of `saved` elements by their keys, the first all ones, the next all twos and so on.

    And a graph that restores it: `reads` has a list for each RestoreV2 operation, and each of its outputs a variable.
    `names` makes the tensor of the keys; `beside` makes one more operation to run, from the first output.
    """

    def __init__(
        self,
        folder: Path,
        saved: Mapping[str, int],
        reads: Sequence[Sequence[Read]],
        names: Names = tf.constant,
        beside: Callable[[Any], Any] | None = None,
    ) -> None:
        folder.mkdir()
        self.prefix = str(folder / "variables")
        _save(self.prefix, {key: np.full(size, n, np.float32) for n, (key, size) in enumerate(saved.items(), 1)})
        self._variables: list[Any] = []
        with tf.Graph().as_default() as graph:
            prefix = v1.placeholder_with_default("nowhere", [], name="prefix")
            outputs = [tensor for each in reads for tensor in self._restored(prefix, each, names)]
            done = [
                variable.assign(tf.ensure_shape(tensor, variable.shape)).op
                for variable, tensor in zip(self._variables, outputs, strict=True)
            ]
            restore = tf.group(*done, *([] if beside is None else [beside(outputs[0])]), name="restore")
            self._last = [each.value()[-1] for each in self._variables]
        self._session = v1.Session(graph=graph)
        saver = saver_pb2.SaverDef(filename_tensor_name=prefix.name, restore_op_name=restore.name)
        self._meta_graph = meta_graph_pb2.MetaGraphDef(saver_def=saver, graph_def=graph.as_graph_def())

    def _restored(self, prefix: Any, reads: Sequence[Read], names: Names) -> Any:
        for _, _, size in reads:
            name = f"v{len(self._variables)}"
            self._variables.append(v1.get_variable(name, [size], use_resource=True))
        keys, parts = [key for key, _, _ in reads], [part for _, part, _ in reads]
        dtypes = [tf.float32] * len(reads)
        return tf.raw_ops.RestoreV2(prefix=prefix, tensor_names=names(keys), shape_and_slices=parts, dtypes=dtypes)

    def restore(self) -> list[Any]:
        """Whether it is done, what was said of it, and of each variable the last element or what is wrong with it."""
        with _said() as said:
            done = checkpoint_restore.restore(self._session, self._meta_graph, self.prefix)
        return [done, *(each.replace(self.prefix, "PREFIX") for each in said), self.last()]

    def restore_by_tensorflow(self) -> list[Any]:
        """What went wrong, if anything did, and of the variables as above."""
        try:
            self._session.run("restore", {"prefix:0": self.prefix})
        except tf.errors.OpError as error:
            return [type(error).__name__, self.last()]
        return [None, self.last()]

    def last(self) -> list[Any]:
        found: list[Any] = []
        for each in self._last:
            try:
                found.append(float(self._session.run(each)))
            except tf.errors.OpError as error:
                found.append(type(error).__name__)
        return found

    def refuse_the_next_run(self) -> None:
        run = self._session.run

        def refuse(*_: Any) -> None:
            self._session.run = run
            raise tf.errors.InternalError(None, None, "not now")

        self._session.run = refuse


def _save(prefix: str, values: Mapping[str, np.ndarray]) -> None:
    with tf.Graph().as_default(), v1.Session() as session:
        parts = [""] * len(values)
        tensors = list(values.values())
        session.run(tf.raw_ops.SaveV2(prefix=prefix, tensor_names=[*values], shape_and_slices=parts, tensors=tensors))


@contextmanager
def _said() -> Iterator[list[str]]:
    """What the module logs."""
    said: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: said.append(record.getMessage())  # type: ignore[method-assign]
    checkpoint_restore.log.addHandler(handler)
    try:
        yield said
    finally:
        checkpoint_restore.log.removeHandler(handler)


@contextmanager
def _reads_meet(count: int) -> Iterator[None]:
    """Reads of wide tensors go on only when so many are under way; there are CPUs enough for that."""
    meeting = threading.Barrier(count, timeout=_MEET_WITHIN_S)
    read = DataFiles.read

    def met(files: DataFiles, entry: Entry) -> np.ndarray:
        if entry.size == WIDE * _FLOAT_BYTES:
            meeting.wait()
        return read(files, entry)

    with patch.object(DataFiles, "read", met), patch.object(checkpoint_restore.cpu_count, "available", lambda: count):
        yield


def _flip(prefix: str, at: int) -> None:
    path = Path(f"{prefix}.data-00000-of-00001")
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


def _open_files(below: Path) -> int:
    links = [f"/proc/self/fd/{fd}" for fd in os.listdir("/proc/self/fd")]
    return sum(os.readlink(link).startswith(str(below)) for link in links if os.path.islink(link))


def some_of_an_operation(folder: Path) -> Any:
    """One reads a big tensor, a small one and a part of another big one."""
    reads = [("big", "", BIG), ("small", "", SMALL), ("other", f"{BIG} 500,{BIG - 500}", BIG - 500)]
    return Model(folder, {"big": BIG, "small": SMALL, "other": BIG}, [reads]).restore()


def names_that_are_not_static(folder: Path) -> Any:
    """Those of one operation, and then of the other, too."""

    def names(keys: list[str]) -> Any:
        return tf.identity(v1.placeholder_with_default(keys, [None]))

    def some(keys: list[str]) -> Any:
        return names(keys) if keys == ["big"] else tf.constant(keys)

    saved, reads = {"big": BIG, "other": BIG}, [[("big", "", BIG)], [("other", "", BIG)]]
    with_others = Model(folder, saved, reads, some).restore()
    alone = Model(folder / "alone", saved, reads, names)
    return [with_others, alone.restore(), alone.restore_by_tensorflow()]


def what_waits_for_a_read(folder: Path) -> Any:
    def after(read: Any) -> Any:
        with tf.control_dependencies([read.op]):
            return tf.no_op(name="after")

    model = Model(folder, {"big": BIG}, [[("big", "", BIG)]], beside=after)
    return [model.restore(), model.restore_by_tensorflow()]


def a_run_that_fails(folder: Path) -> Any:
    """Once, and then not again."""
    model = Model(folder, {"big": BIG}, [[("big", "", BIG)]])
    model.refuse_the_next_run()
    return [model.restore(), model.restore_by_tensorflow()]


def a_shape_that_is_wrong(folder: Path) -> Any:
    """The operations fail, whoever feeds them."""
    model = Model(folder, {"other": BIG}, [[("other", "", SMALL)]])
    return [model.restore(), model.restore_by_tensorflow()]


def side_by_side(folder: Path) -> Any:
    reads = [("wide", "", WIDE), ("big", "", BIG), ("wider", "", WIDE)]
    model = Model(folder, {"wide": WIDE, "big": BIG, "wider": WIDE}, [reads])
    with _reads_meet(2):
        return model.restore()


def damage_beside_what_is_good(folder: Path) -> Any:
    """In the second of two. Nothing is left of the attempt: no thread, no open file."""
    model = Model(folder, {"wide": WIDE, "wider": WIDE}, [[("wide", "", WIDE), ("wider", "", WIDE)]])
    _flip(model.prefix, WIDE * _FLOAT_BYTES + 100)
    threads = threading.active_count()
    with _reads_meet(2):
        restored = model.restore()
    left = [threading.active_count() - threads, _open_files(folder)]
    return [restored, left, model.restore_by_tensorflow()[0]]


_SCENES = (
    some_of_an_operation,
    names_that_are_not_static,
    what_waits_for_a_read,
    a_run_that_fails,
    a_shape_that_is_wrong,
    side_by_side,
    damage_beside_what_is_good,
)


def main() -> None:
    checkpoint_restore.log.setLevel(logging.INFO)
    checkpoint_restore.BIG_BYTES = _BIG_BYTES
    checkpoint_restore._SIDE_BY_SIDE_ELEMENTS = BIG
    root = Path(sys.argv[1])
    print(json.dumps({scene.__name__: scene(root / scene.__name__) for scene in _SCENES}))


if __name__ == "__main__":
    main()
