"""What a TensorFlow Lite model keeps from run to run, by its schema alone."""

from collections.abc import Sequence

import flatbuffers
import pytest
from tensorflow.lite.python import schema_py_generated as schema

from modelpool.worker import tflite_state

OPS = schema.BuiltinOperator
CODES = (OPS.ADD, OPS.CALL_ONCE, OPS.READ_VARIABLE, OPS.ASSIGN_VARIABLE)


def graph(*operators: int, variable: bool = False, init: int = 1) -> schema.SubGraphT:
    made, tensor = schema.SubGraphT(), schema.TensorT()
    tensor.isVariable = variable
    made.tensors, made.operators = [tensor], []
    for code in operators:
        operator = schema.OperatorT()
        operator.opcodeIndex = CODES.index(code)
        if code == OPS.CALL_ONCE:
            operator.builtinOptionsType = schema.BuiltinOptions.CallOnceOptions
            operator.builtinOptions = schema.CallOnceOptionsT()
            operator.builtinOptions.initSubgraphIndex = init
        made.operators.append(operator)
    return made


def model(graphs: Sequence[schema.SubGraphT]) -> bytes:
    made = schema.ModelT()
    made.version, made.subgraphs, made.operatorCodes = 3, list(graphs), []
    for code in CODES:
        made.operatorCodes.append(schema.OperatorCodeT())
        made.operatorCodes[-1].builtinCode = code
    builder = flatbuffers.Builder(1024)
    builder.Finish(made.Pack(builder), b"TFL3")
    return bytes(builder.Output())


@pytest.mark.parametrize(
    ("graphs", "changes"),
    [
        ([], []),
        ([graph(OPS.ADD)], []),
        ([graph(OPS.ADD, OPS.READ_VARIABLE, OPS.ASSIGN_VARIABLE)], ["ASSIGN_VARIABLE"]),
        ([graph(OPS.ADD), graph(OPS.ASSIGN_VARIABLE)], ["ASSIGN_VARIABLE"]),
        ([graph(OPS.ADD, variable=True)], ["variable tensors"]),
        ([graph(OPS.CALL_ONCE, OPS.READ_VARIABLE), graph(OPS.ASSIGN_VARIABLE)], []),
        ([graph(OPS.CALL_ONCE, OPS.ASSIGN_VARIABLE), graph(OPS.ASSIGN_VARIABLE)], ["ASSIGN_VARIABLE"]),
        ([graph(OPS.ASSIGN_VARIABLE), graph(OPS.CALL_ONCE, init=2), graph(OPS.ASSIGN_VARIABLE)], ["ASSIGN_VARIABLE"]),
        ([graph(OPS.ASSIGN_VARIABLE), graph(OPS.CALL_ONCE, init=0)], []),
    ],
    ids=["empty", "none", "assigned", "in another graph", "recurrent", "initialized", "both", "another", "the first"],
)
def test_what_changes_state(graphs: Sequence[schema.SubGraphT], changes: list[str]) -> None:
    assert tflite_state.changing_operations(model(graphs)) == changes
