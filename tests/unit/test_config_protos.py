"""TF Serving's messages that we describe ourselves: names and numbers, and that an Any of one is read from text."""

from typing import Any

import pytest
from google.protobuf import text_format

from modelpool.supervisor import config_protos


@pytest.mark.parametrize(
    ("message", "name", "numbers"),
    [
        (config_protos.MonitoringConfig, "MonitoringConfig", {"prometheus_config": 1}),
        (
            config_protos.SSLConfig,
            "SSLConfig",
            {"server_key": 1, "server_cert": 2, "custom_ca": 3, "client_verify": 4},
        ),
        (
            config_protos.BatchingParameters,
            "BatchingParameters",
            {
                **{"max_batch_size": 1, "batch_timeout_micros": 2, "max_enqueued_batches": 3, "num_batch_threads": 4},
                **{"thread_pool_name": 5, "allowed_batch_sizes": 6, "pad_variable_length_inputs": 7},
                **{"enable_large_batch_splitting": 8, "max_execution_batch_size": 9},
            },
        ),
        (
            config_protos.SessionBundleConfig,
            "SessionBundleConfig",
            {
                **{"session_target": 1, "session_config": 2, "batching_parameters": 3},
                **{"session_run_load_threadpool_index": 4, "experimental_transient_ram_bytes_during_load": 5},
                **{"saved_model_tags": 6, "experimental_fixed_input_tensors": 778, "enable_model_warmup": 779},
                **{"model_warmup_options": 780, "enable_session_metadata": 781},
                **{"remove_unused_fields_from_bundle_metagraph": 782, "prefer_tflite_model": 783},
                **{"resource_estimation_uses_validation_result": 784, "num_tflite_interpreters": 785},
                **{"num_tflite_interpreters_per_pool": 786, "num_tflite_pools": 787},
            },
        ),
        (
            config_protos.SavedModelBundleSourceAdapterConfig,
            "SavedModelBundleSourceAdapterConfig",
            {"legacy_config": 1000},
        ),
    ],
)
def test_names_and_numbers(message: Any, name: str, numbers: dict[str, int]) -> None:
    assert message.DESCRIPTOR.full_name == f"tensorflow.serving.{name}"
    assert {field.name: field.number for field in message.DESCRIPTOR.fields} == numbers


def test_bytes() -> None:
    """As protoc's code would write them: a wrapper inside a message, and packed numbers."""
    parameters = config_protos.BatchingParameters(allowed_batch_sizes=[2, 4])
    parameters.max_batch_size.value = 4
    assert parameters.SerializeToString() == b"\x0a\x02\x08\x04\x32\x02\x02\x04"
    assert config_protos.BatchingParameters.FromString(parameters.SerializeToString()) == parameters


def test_an_any_of_ours_in_text() -> None:
    text = """
        platform_configs { key: "tensorflow" value { source_adapter_config {
          [type.googleapis.com/tensorflow.serving.SavedModelBundleSourceAdapterConfig] {
            legacy_config { batching_parameters { num_batch_threads { value: 8 } } saved_model_tags: ["a", "b"] }
          } } } }
    """
    parsed = text_format.Parse(text, config_protos.PlatformConfigMap())
    adapter = config_protos.SavedModelBundleSourceAdapterConfig()
    assert parsed.platform_configs["tensorflow"].source_adapter_config.Unpack(adapter)
    assert adapter.legacy_config.batching_parameters.num_batch_threads.value == 8
    assert list(adapter.legacy_config.saved_model_tags) == ["a", "b"]
    assert not adapter.legacy_config.batching_parameters.HasField("max_batch_size")
