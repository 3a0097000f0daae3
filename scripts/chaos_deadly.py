"""The numbers that models of the chaos scenes act on, and the operation of the model `deadly`.

It aborts its process at the deadly number. Imported by workers (`python_modules`): a graph names a Python function by a
token, and the process that runs it must have registered one under that token.
"""

import os
from typing import Any

TOKEN = "modelpool_chaos_deadly"
NUMBER = 666
SLOW_NUMBER, SLOW_S = 333, 3.0


def numbers(x: Any) -> Any:
    """What came, unless the deadly number is in it."""
    if NUMBER in x:
        os.abort()
    return x


def register() -> None:
    from tensorflow.python.ops import script_ops

    script_ops._py_funcs._funcs[TOKEN] = numbers


register()
