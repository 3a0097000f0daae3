"""Whether the start of a pool is over: has every configured model settled, does it answer, was it given up. Pure."""

from collections.abc import Iterable

from .model import Model
from .wire.status import OK, Code, Status


def is_settled(models: Iterable[Model], acked_epoch: int) -> bool:
    """Every configured model has a version that answers, or its first attempt has failed; labelled ones alike."""
    return all(
        model.labels_settled(acked_epoch) and model.outcome(acked_epoch) is not None
        for model in models
        if model.configured
    )


def is_answering(models: Iterable[Model], acked_epoch: int) -> bool:
    """Every configured model has a version that answers, and no version with a label is still on its way.

    TF Serving takes labels at the start only for versions that are AVAILABLE, so an open port means that.
    """
    return all(
        model.labels_settled(acked_epoch) and model.outcome(acked_epoch) == OK for model in models if model.configured
    )


def failure(models: Iterable[Model], acked_epoch: int) -> Status | None:
    """Why TF Serving would end the start: some model was given up (server_core.cc, WaitUntilModelsAvailable)."""
    waited_for = [model for model in models if model.configured and model.outcome(acked_epoch) != OK]
    ended = sorted(end for model in waited_for if (end := model.ended()) is not None)
    if not ended or len(ended) < len(waited_for):
        return None
    each = "".join(f"{{{{name: {id_.name} version: {id_.version}}} due to error: {why}}}, " for id_, why in ended)
    return Status(Code.UNKNOWN, f"{len(ended)} servable(s) did not become available: {{{each}}}")
