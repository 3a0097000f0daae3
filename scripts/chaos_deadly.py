"""The operation of the model `deadly`, which aborts its process at one number. Imported by workers (`python_modules`).

A graph names a Python function by a token; the process that runs it must have registered one under that token.
"""

import os
from typing import Any

TOKEN = "modelpool_chaos_deadly"
NUMBER = 666


def numbers(x: Any) -> Any:
    """What came, unless the deadly number is in it."""
    if NUMBER in x:
        os.abort()
    return x


def register() -> None:
    from tensorflow.python.ops import script_ops

    script_ops._py_funcs._funcs[TOKEN] = numbers


register()
