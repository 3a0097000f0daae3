"""What a TensorFlow Lite model keeps from one run to the next: variables, and tensors of recurrent layers. Pure; needs
TensorFlow's schema.

An interpreter has its own of each (tensorflow/lite/core/subgraph.h: resources_; schema.fbs: Tensor.is_variable).
"""

from collections.abc import Iterator
from typing import Any

from tensorflow.lite.python import schema_py_generated as schema

_CALL_ONCE = schema.BuiltinOperator.CALL_ONCE
_CHANGES = {schema.BuiltinOperator.ASSIGN_VARIABLE: "ASSIGN_VARIABLE"}


def changing_operations(content: bytes) -> list[str]:
    """The kinds of what changes state anywhere in the model `content`, sorted. Not what each interpreter does once, to
    begin with.
    """
    model = schema.Model.GetRootAsModel(content, 0)
    codes = [model.OperatorCodes(number).BuiltinCode() for number in range(model.OperatorCodesLength())]
    graphs = [model.Subgraphs(number) for number in range(model.SubgraphsLength())]
    first = {number for graph in graphs for number in _done_once(graph, codes)}
    found = set()
    for number, graph in enumerate(graphs):
        if number in first:
            continue
        found |= {_CHANGES[code] for code in map(codes.__getitem__, _operators(graph)) if code in _CHANGES}
        if any(graph.Tensors(each).IsVariable() for each in range(graph.TensorsLength())):
            found.add("variable tensors")
    return sorted(found)


def _operators(graph: Any) -> Iterator[int]:
    """The index of each one's code."""
    for number in range(graph.OperatorsLength()):
        yield graph.Operators(number).OpcodeIndex()


def _done_once(graph: Any, codes: list[int]) -> Iterator[int]:
    """The subgraphs by which it is initialized."""
    for number, code in enumerate(_operators(graph)):
        if codes[code] == _CALL_ONCE:
            options, table = schema.CallOnceOptions(), graph.Operators(number).BuiltinOptions()
            if table is not None:
                options.Init(table.Bytes, table.Pos)
                yield options.InitSubgraphIndex()
