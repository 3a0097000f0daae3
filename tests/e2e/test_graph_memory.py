"""Of a loaded SavedModel its signatures stay, and nothing of the graph beside them."""

import subprocess
import sys
from pathlib import Path

# A message that is part of a larger one keeps all of that. So the memory that comes free with the signatures is told,
# once all else has been given back.
_LOAD = """
import ctypes, gc, sys
from pathlib import Path
import numpy as np
import tensorflow as tf
from modelpool.worker import loader

def resident_bytes():
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096

path, size = sys.argv[1], int(sys.argv[2])
with tf.Graph().as_default(), tf.compat.v1.Session() as session:
    x = tf.compat.v1.placeholder(tf.float32, [None])
    y = x + tf.constant(np.ones(size // 4, np.float32))[0]
    tf.compat.v1.saved_model.simple_save(session, path, {"x": x}, {"y": y})
del x, y, session
model = loader.load(path, ["serve"])
(key,) = model.signatures
before = resident_bytes()
model.signatures = {}
print(key, before - resident_bytes())
"""
_CONSTANT_BYTES = 64 << 20


def test_the_graph_does_not_stay_for_the_signatures(tmp_path: Path) -> None:
    command = [sys.executable, "-c", _LOAD, str(tmp_path / "1"), str(_CONSTANT_BYTES)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    key, freed = done.stdout.split()
    assert key == "serving_default"
    assert int(freed) < _CONSTANT_BYTES // 4
