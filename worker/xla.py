"""Turns compilation by XLA off in this process, as TF Serving does unless a flag allows it (model_servers/main.cc).

Main thread of the worker, before the model is loaded. TensorFlow has no Python name for this switch, so the exported
C++ function (`tensorflow/compiler/jit/flags.h:DisableXlaCompilation`) is called by its own.
"""

import ctypes
import logging
import os

import tensorflow as tf

log = logging.getLogger(__name__)

_LIBRARY = "libtensorflow_cc.so.2"
_DISABLE = "_ZN10tensorflow21DisableXlaCompilationEv"


def disable() -> None:
    """From now on, what asks to be compiled fails with INTERNAL `XLA compilation disabled`. It cannot be undone."""
    try:
        function = getattr(ctypes.CDLL(os.path.join(tf.sysconfig.get_lib(), _LIBRARY)), _DISABLE)
    except (OSError, AttributeError) as error:
        # A TensorFlow that is linked otherwise: its models compile, which is more than the operator asked for.
        log.warning("XLA not disabled error=%s", error)
        return
    function.restype = None
    function.argtypes = ()
    function()
