"""Operations that change state, found below what is fetched, and nowhere else."""

import modelpool.supervisor.wire.protos  # noqa: F401, I001  (a bare tensorflow package, before its protos)
from typing import Any

import pytest
from google.protobuf import text_format
from modelpool.worker.graph_state import changing_operations
from tensorflow.core.framework import graph_pb2

GRAPH = """
node { name: "x" op: "Placeholder" }
node { name: "v" op: "VarHandleOp" }
node { name: "read" op: "ReadVariableOp" input: "v" }
node { name: "y" op: "Mul" input: "x" input: "read" }
node { name: "count" op: "AssignAddVariableOp" input: "v" input: "x" }
node { name: "after" op: "Identity" input: "y:0" input: "^count" }
node { name: "save" op: "SaveV2" input: "v" }
node { name: "call" op: "StatefulPartitionedCall" input: "x" attr { key: "f" value { func { name: "outer" } } } }
node { name: "pure" op: "PartitionedCall" input: "x" attr { key: "f" value { func { name: "fine" } } } }
node { name: "branch" op: "If" input: "x" attr { key: "then_branch" value { func { name: "fine" } } }
       attr { key: "else_branch" value { func { name: "outer" } } } }
node { name: "case" op: "Case" input: "x" attr { key: "branches" value { list { func { name: "outer" } } } } }
library {
  function { signature { name: "outer" } node_def { name: "n" op: "inner" } }
  function { signature { name: "inner" } node_def { name: "n" op: "LookupTableInsertV2" }
             node_def { name: "m" op: "outer" } }
  function { signature { name: "fine" } node_def { name: "n" op: "LookupTableFindV2" } }
}
"""


@pytest.fixture(scope="module")
def graph() -> Any:
    return text_format.Parse(GRAPH, graph_pb2.GraphDef())


@pytest.mark.parametrize(
    ("fetch", "found"),
    [
        ("y:0", []),
        ("after:0", ["AssignAddVariableOp"]),
        ("call:0", ["LookupTableInsertV2"]),
        ("branch:0", ["LookupTableInsertV2"]),
        ("case:0", ["LookupTableInsertV2"]),
        ("pure:0", []),
        ("absent:0", []),
    ],
)
def test_what_is_below_a_tensor(graph: Any, fetch: str, found: list[str]) -> None:
    assert changing_operations(graph, [fetch]) == found


@pytest.mark.parametrize(
    ("op", "changes"),
    [
        ("AssignVariableOp", True),
        ("Assign", True),
        ("ResourceScatterAdd", True),
        ("ScatterNdUpdate", True),
        ("ResourceApplyAdam", True),
        ("QueueDequeueV2", True),
        ("MutableHashTableV2", False),
        ("ScatterNd", False),
        ("TensorScatterUpdate", False),
        ("PrintV2", False),
        ("RefSwitch", False),
        ("EagerPyFunc", True),
        ("Conv2D", False),
        ("RandomUniform", False),
        ("ParseExampleV2", False),
    ],
)
def test_operations(op: str, changes: bool) -> None:
    graph = graph_pb2.GraphDef()
    graph.node.add(name="n", op=op)
    assert changing_operations(graph, ["n:0"]) == ([op] if changes else [])
