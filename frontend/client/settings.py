"""Arguments that both clients take. Pure."""

from collections.abc import Iterable, Mapping

DEFAULT_TIMEOUT_S = 30.0

MetadataArgument = Mapping[str, str | bytes] | Iterable[tuple[str, str | bytes]]


def metadata_pairs(metadata: MetadataArgument) -> tuple[tuple[str, str | bytes], ...]:
    """gRPC's form of it: keys in lower case."""
    pairs = metadata.items() if isinstance(metadata, Mapping) else metadata
    return tuple((key.lower(), value) for key, value in pairs)
