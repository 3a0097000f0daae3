"""Whether version labels may point where a new configuration puts them: TF Serving's UpdateModelVersionLabelMap.

Pure. Looks only at what is labelled and at what is AVAILABLE; attaching the labels is the manager's. Facts:
`model_servers/server_core.cc`.
"""

from collections.abc import Collection, Mapping

from .wire.status import FailedPrecondition

Labels = Mapping[str, Mapping[str, int]]
"""Model name to its labels, each with the version that it points to."""


def check(current: Labels, wanted: Labels, available: Mapping[str, Collection[int]], allow_unavailable: bool) -> None:
    """Raises FailedPrecondition for the first label of `wanted` that may not point where it does.

    `current` are the labels in use, `available` the AVAILABLE versions per model. One label that is refused refuses
    all of `wanted`. A label may point to any AVAILABLE version; to another one only if `allow_unavailable` is set
    (`--allow_version_labels_for_unavailable_models`), and then only if it is new or stays where it was.
    """
    for model, labels in wanted.items():
        for label, version in labels.items():
            moves = current.get(model, {}).get(label, version) != version
            if version not in available.get(model, ()) and (moves or not allow_unavailable):
                raise FailedPrecondition(
                    f"Request to assign label to version {version} of model {model}, "
                    "which is not currently available for inference"
                )
