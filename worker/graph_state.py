"""Which operations of a graph change what later runs see: variables, tables, queues, files. Pure: graphs in, names out.

Looks at what the fetched tensors depend on, into functions and branches too. By the names of operations, since a
GraphDef does not say what an operation changes.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

# Assign*, ResourceScatter*, optimizers (ResourceApply*), tables, queues, stacks and barriers, datasets' iterators,
# what writes files or calls back into Python.
_CHANGES = re.compile(
    r"Assign.*|Ref.*|.*Scatter(Update|Add|Sub|Mul|Div|Min|Max|NdUpdate|NdAdd|NdSub)|(Resource)?(Sparse)?Apply.*"
    r"|CountUpTo|ResourceCountUpTo|.*Table(Insert|Remove|Import|Size)(V2)?|.*(Enqueue|Dequeue).*|Stack(Push|Pop)(V2)?"
    r"|Barrier.*|.*Stage|.*Unstage|MapClear|Iterator.*|OneShotIterator|.*Accumulator.*|PyFunc.*|EagerPyFunc"
    r"|WriteFile|Save.*|.*Summary.*|Print.*|DestroyResourceOp|DestroyTemporaryVariable|TemporaryVariable"
)
# These are named as the above and change nothing that another run sees.
_HARMLESS = re.compile(
    r"Ref(Identity|Switch|Merge|Enter|Exit|NextIteration|Select)|TensorScatter.*|.*TableSize.*|Print.*"
)


def changing_operations(graph: Any, fetches: Iterable[str]) -> list[str]:
    """The kinds of operations below `fetches` (tensor names) of a GraphDef that change state; sorted."""
    nodes = {node.name: node for node in graph.node}
    functions = {function.signature.name: function for function in graph.library.function}
    found = {node.op for node in _below(nodes, functions, fetches) if _CHANGES.fullmatch(node.op)}
    return sorted(op for op in found if not _HARMLESS.fullmatch(op))


def _below(nodes: Mapping[str, Any], functions: Mapping[str, Any], fetches: Iterable[str]) -> Iterator[Any]:
    """The nodes that the tensors depend on, and all nodes of the functions that those call."""
    pending = [_node_name(name) for name in fetches]
    seen: set[str] = set()
    called: list[str] = []
    while pending:
        name = pending.pop()
        if name in seen or name not in nodes:
            continue
        seen.add(name)
        node = nodes[name]
        yield node
        called += _functions_of(node, functions)
        pending += [_node_name(each) for each in node.input]
    entered: set[str] = set()
    while called:
        name = called.pop()
        if name not in entered:
            entered.add(name)
            for node in functions[name].node_def:
                yield node
                called += _functions_of(node, functions)


def _functions_of(node: Any, functions: Mapping[str, Any]) -> list[str]:
    names = [node.op] if node.op in functions else []
    for value in node.attr.values():
        names += [value.func.name] if value.HasField("func") else [each.name for each in value.list.func]
    return [name for name in names if name in functions]


def _node_name(tensor: str) -> str:
    return tensor.removeprefix("^").partition(":")[0]
