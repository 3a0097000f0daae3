"""BatchingParameters: TF Serving's defaults, and what it refuses at the start, word for word."""

from typing import Any

import pytest
from google.protobuf import text_format

from modelpool.supervisor import config_protos
from modelpool.supervisor.wire import batching_params
from modelpool.supervisor.wire.status import InvalidArgument
from modelpool.supervisor.wire.worker_spec import Batching


def parsed(text: str) -> Batching:
    message: Any = text_format.Parse(text, batching_params.BatchingParameters())
    return batching_params.batching(message)


def test_defaults() -> None:
    assert parsed("") == Batching()
    assert parsed("") == Batching(1000, 0, 10, 0, "batch_threads", (), False, False, 0)


def test_all_values() -> None:
    text = """
        max_batch_size { value: 8 } batch_timeout_micros { value: 5 } max_enqueued_batches { value: 3 }
        num_batch_threads { value: 2 } thread_pool_name { value: "t" } allowed_batch_sizes: 2 allowed_batch_sizes: 4
        pad_variable_length_inputs: true enable_large_batch_splitting { value: true }
        max_execution_batch_size { value: 4 }
    """
    assert parsed(text) == Batching(8, 5, 3, 2, "t", (2, 4), True, True, 4)


SPLIT = "enable_large_batch_splitting { value: true } "


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("num_batch_threads { value: 0 }", "num_batch_threads must be positive; was 0"),
        ("max_batch_size { value: 0 }", "max_batch_size must be positive; was 0"),
        ("batch_timeout_micros { value: -1 }", "batch_timeout_micros must be non-negative; was -1"),
        ("max_enqueued_batches { value: -1 }", "max_enqueued_batches must be non-negative; was -1"),
        (
            "allowed_batch_sizes: 8",
            "Last entry in allowed_batch_sizes must match max_batch_size; last entry was 8; expected 1000",
        ),
        (
            "allowed_batch_sizes: 2 allowed_batch_sizes: 2 max_batch_size { value: 2 }",
            "allowed_batch_sizes entries must be monotonically increasing",
        ),
        (
            SPLIT + "allowed_batch_sizes: 8 max_batch_size { value: 8 } max_execution_batch_size { value: 4 }",
            "Last entry in allowed_batch_sizes must be equal to max_execution_batch_size; last entry was 8; expected 4",
        ),
        (SPLIT + "max_enqueued_batches { value: 0 }", "max_enqueued_batches must be positive; was 0"),
        (
            SPLIT + "max_batch_size { value: 8 } max_execution_batch_size { value: 9 }",
            "max_execution_batch_size must be less than or equal to max_batch_size when large batch splitting is "
            "enabled; was 9, expected at most 8",
        ),
    ],
)
def test_what_is_refused(text: str, error: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        parsed(text)
    assert caught.value.message == error


def test_the_file_of_a_version() -> None:
    pool = Batching(max_batch_size=5, num_batch_threads=3, thread_pool_name="pool")
    text = 'max_batch_size { value: 7 } num_batch_threads { value: 9 } thread_pool_name { value: "mine" }'
    settings = batching_params.of_version(text, "/m/1/batching_params.pbtxt", pool)
    assert (settings.max_batch_size, settings.num_batch_threads, settings.thread_pool_name) == (7, 3, "pool")
    with pytest.raises(InvalidArgument, match=r"Invalid protobuf file: '/m/1/batching_params\.pbtxt'.*max_batch"):
        batching_params.of_version("max_batch: 7", "/m/1/batching_params.pbtxt", pool)


def test_it_is_the_message_of_a_platform_configuration() -> None:
    config = text_format.Parse(
        "batching_parameters { max_batch_size { value: 8 } }", config_protos.SessionBundleConfig()
    )
    assert batching_params.batching(config.batching_parameters).max_batch_size == 8
