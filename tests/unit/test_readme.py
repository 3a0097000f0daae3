"""The README says something of every flag, RPC and key, with its default, and of nothing that is not there."""

import re
import tomllib
from dataclasses import fields
from pathlib import Path
from typing import Any

import bench_options
import pytest
from tensorflow_serving.apis import model_service_pb2, prediction_service_pb2

from modelpool.supervisor import command_line, flags
from modelpool.supervisor.model_policy import ModelPolicy
from modelpool.supervisor.wire import metric_families
from modelpool.supervisor.wire.metrics import Family

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text("utf-8")
INERT = "accepted without effect: "


def table(heading: str) -> dict[str, list[str]]:
    """The rows below the line that begins with `heading`, by their first cell without its backticks."""
    lines = README.splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith(heading))
    rows = {}
    for line in lines[start + 2 :]:
        if not line.startswith("|"):
            break
        name, *rest = (cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1])
        rows[name.strip("`")] = rest
    return rows


FLAGS = table("| flag | default |")


def test_every_flag_is_there_and_no_other() -> None:
    assert sorted(FLAGS) == sorted(field.name for field in fields(flags.Flags))


@pytest.mark.parametrize("name", [field.name for field in fields(flags.Flags)])
def test_what_is_said_of_a_flag(name: str) -> None:
    default, effect = FLAGS[name]
    assert re.match(r"(works|differs: |ours|accepted without effect: )", effect), effect
    (inert,) = [each.reason for each in command_line.inert_flags([f"--{name}={_good(name)}"])] or [""]
    assert effect == (INERT + inert if inert else effect), "as the log says it"
    assert bool(inert) == effect.startswith(INERT)
    (field,) = [field for field in fields(flags.Flags) if field.name == name]
    if re.fullmatch(r"ours: [A-Z].*\.", effect):  # others tell more, or less, than the help
        as_helped, as_told = (re.sub(r"\(see [^)]*\)", "", each) for each in (flags.spec(field).help, effect))
        assert as_told == f"ours: {as_helped}", "as --help says it"
    declared = str(field.default)
    if default not in {"`CPUs`", "`4 x CPUs`"}:
        assert default.strip("`").lower() == declared.lower()


def _good(name: str) -> str:
    """A value that the flag takes."""
    (default,) = [field.default for field in fields(flags.Flags) if field.name == name]
    return str(default)


def test_every_rpc_is_there() -> None:
    text = " ".join(f"{name} {' '.join(rest)}" for name, rest in table("| RPC |").items())
    for file in (prediction_service_pb2, model_service_pb2):
        for service in file.DESCRIPTOR.services_by_name.values():
            assert service.name in text
            assert [method.name for method in service.methods if method.name not in text] == []


def test_every_key_of_the_pool_file_is_there_with_its_default() -> None:
    """A list of one may be shown as that one."""
    (block,) = [each for each in re.findall(r"```\n(.*?)```", README, re.S) if each.startswith("[defaults]")]
    shown: dict[str, Any] = tomllib.loads(block)["defaults"]
    assert sorted(shown) == sorted(field.name for field in fields(ModelPolicy))
    for field in fields(ModelPolicy):
        value = list(field.default) if isinstance(field.default, tuple) else field.default
        assert value in (shown[field.name], [shown[field.name]]), field.name


def test_every_metric_of_ours_is_there_and_no_other() -> None:
    ours = {each.name for each in vars(metric_families).values() if isinstance(each, Family)}
    named = re.findall(r"`(\w+)`", re.sub(r"\(.*?\)", "", " ".join(map(str, table("| of | metrics |").values()))))
    assert sorted(f"modelpool_{name}" for name in named) == sorted(x for x in ours if x.startswith("modelpool_"))


def test_every_file_is_there() -> None:
    """What stands in backticks as a path, with or without the ending of a module."""
    named = set(re.findall(r"`((?:supervisor|worker|frontend|scripts|tests|deploy)/[\w/.*]*)`", README))
    assert len(named) > 10
    assert [each for each in sorted(named) if not [*ROOT.glob(each), *ROOT.glob(f"{each}.py")]] == []


def test_what_the_bench_is_asked_for() -> None:
    named = {word for words in re.findall(r"--what=([\w,]+)", README) for word in words.split(",")}
    assert named <= set(bench_options.WHAT)
    assert set(bench_options.WHAT) - named == {"serving"}, "what it does by itself"
