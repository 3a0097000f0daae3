"""What a HandleReloadConfigRequest asks for and how it ended. Pure: the pool takes the configuration over and waits.

Texts and codes are those of TF Serving's `model_servers/model_service_impl.cc` (HandleReloadConfigRequest) and
`server_core.cc` (WaitUntilModelsAvailable).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from google.protobuf.message import DecodeError

from .model_config import ModelConfig, models_of
from .wire.protos import ReloadConfigRequest
from .wire.status import OK, Code, DeadlineExceeded, Internal, InvalidArgument, Status


@dataclass(frozen=True, slots=True)
class Settled:
    """What became of a newly named model: OK when a version is AVAILABLE, else the error of the version that failed.

    `version` is None when it has no version that could be loaded.
    """

    version: int | None
    status: Status


def parse_reload(request: bytes, current: Sequence[ModelConfig]) -> tuple[ModelConfig, ...]:
    """The models of a serialized ReloadConfigRequest, in its order, to replace `current`, the configuration in force.

    Raises Internal for what is no protobuf, as a gRPC server answers it, InvalidArgument for a configuration that
    cannot be taken over.
    """
    message = ReloadConfigRequest()
    try:
        message.ParseFromString(request)
    except DecodeError as error:
        raise Internal("Malformed request: not a ReloadConfigRequest") from error
    if message.config.WhichOneof("config") != "model_config_list":
        raise InvalidArgument(
            "ServerModelConfig type not supported by HandleReloadConfigRequest. "
            "Only ModelConfigList is currently supported"
        )
    return models_of(message.config, current)


def newly_named(current: Sequence[ModelConfig], wanted: Sequence[ModelConfig]) -> tuple[str, ...]:
    """The models that a reload waits for: those that the configuration in force does not name, in their order."""
    known = {model.name for model in current}
    return tuple(model.name for model in wanted if model.name not in known)


def overdue(timeout_s: float, last: Status = OK) -> Status:
    """The status of a model that has not settled in time, which TF Serving would wait for without end.

    `last` is why its last attempt failed, or why its versions cannot be found.
    """
    text = f"neither available nor given up within {timeout_s:g} s (--reload_timeout_s); it is still being tried"
    return DeadlineExceeded(text if last.code is Code.OK else f"{text}; last error: {last}").status


def outcome(waiting: Mapping[str, Settled]) -> Status:
    """How a reload ended that waited for the models in `waiting`; with an error for each that is not available."""
    failed = {name: settled for name, settled in sorted(waiting.items()) if settled.status.code is not Code.OK}
    if not failed:
        return OK
    each = "".join(f"{{{_named(name, settled)} due to error: {settled.status}}}, " for name, settled in failed.items())
    return Status(Code.UNKNOWN, f"{len(failed)} model(s) did not become available: {{{each}}}")


def _named(name: str, settled: Settled) -> str:
    """A servable as TF Serving's ServableId::DebugString writes it."""
    return f"{{name: {name}}}" if settled.version is None else f"{{name: {name} version: {settled.version}}}"
