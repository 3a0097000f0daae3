"""ModelServerConfig in text format: what it gives, and TF Serving's texts for what it refuses."""

import pytest

from modelpool.supervisor.model_config import (
    ConfigError,
    LoggingConfig,
    ModelConfig,
    models_of,
    parse_model_config,
    single_model,
    split_uri,
)
from modelpool.supervisor.version_policy import All, Latest, Specific
from modelpool.supervisor.wire.protos import ModelServerConfig
from modelpool.supervisor.wire.status import Code, FailedPrecondition

PATH = "/etc/models.config"


def one(body: str, name: str = "m", base_path: str = "/m", platform: str = 'model_platform: "tensorflow"') -> str:
    return f'config {{ name: "{name}" base_path: "{base_path}" {platform} {body} }}'


def parsed(*configs: str, previous: tuple[ModelConfig, ...] = ()) -> tuple[ModelConfig, ...]:
    return parse_model_config(f"model_config_list {{ {' '.join(configs)} }}", PATH, previous)


def refused(*configs: str, previous: tuple[ModelConfig, ...] = ()) -> str:
    with pytest.raises(ConfigError) as error:
        parsed(*configs, previous=previous)
    assert error.value.status.code is Code.INVALID_ARGUMENT
    return error.value.message


def test_defaults() -> None:
    (model,) = parsed(one(""))
    assert model == ModelConfig("m", "/m")
    assert (model.platform, model.version_policy, dict(model.labels)) == ("tensorflow", Latest(1), {})
    assert model.logging is None
    assert hash(model) == hash(ModelConfig("m", "/m"))


def test_order_is_kept() -> None:
    assert [model.name for model in parsed(one("", "b"), one("", "a"), one("", "c"))] == ["b", "a", "c"]


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        ("", Latest(1)),
        ("model_version_policy {}", Latest(1)),
        ("model_version_policy { latest {} }", Latest(1)),
        ("model_version_policy { latest { num_versions: 0 } }", Latest(1)),
        ("model_version_policy { latest { num_versions: 3 } }", Latest(3)),
        ("model_version_policy: { all: {} }", All()),
        ("model_version_policy { specific { versions: 2 versions: 1 versions: 2 } }", Specific((1, 2))),
        ("model_version_policy { specific { versions: [3, 1] } }", Specific((1, 3))),
        ("model_version_policy { specific {} }", Specific(())),
    ],
)
def test_version_policy(policy: str, expected: object) -> None:
    assert parsed(one(policy))[0].version_policy == expected


def test_labels_of_a_version() -> None:
    text = 'version_labels { key: "stable" value: 1 } version_labels { key: "canary" value: 1 }'
    assert parsed(one(text))[0].labels == {"stable": 1, "canary": 1}


def logging_config(sampling: str = "", collector: str = 'filename_prefix: "/log/m"', more: str = "") -> str:
    sampling, collector = f"sampling_config {{ {sampling} }}", f"log_collector_config {{ {collector} }}"
    return one(f"logging_config {{ {sampling} {collector} {more} }}")


@pytest.mark.parametrize("kind", ["", 'type: "" ', 'type: "tfrecord" '])
@pytest.mark.parametrize(("sampling", "rate"), [("", 0.0), ("sampling_rate: 0.5", 0.5), ("sampling_rate: 1", 1.0)])
def test_logging_config(kind: str, sampling: str, rate: float) -> None:
    (model,) = parsed(logging_config(sampling, f'{kind}filename_prefix: "/log/m"'))
    assert model.logging == LoggingConfig(rate, "/log/m")
    assert hash(model) == hash(model)


@pytest.mark.parametrize(
    ("config", "text"),
    [
        (logging_config("sampling_rate: 1.5"), "sampling_config.sampling_rate: expected a number from 0 to 1, got 1.5"),
        (logging_config("sampling_rate: -1"), "sampling_config.sampling_rate: expected a number from 0 to 1, got -1.0"),
        (logging_config("sampling_rate: nan"), "sampling_config.sampling_rate: expected a number from 0 to 1, got nan"),
        (logging_config("attributes: 1"), "sampling_config: only sampling_rate is supported"),
        (
            logging_config('per_task_sampling_configs { dc: "x" }'),
            "sampling_config: only sampling_rate is supported",
        ),
        (
            logging_config(collector='type: "snapshot"'),
            "log_collector_config.type: expected '' or 'tfrecord', got 'snapshot'",
        ),
        (
            logging_config(collector='filename_prefix: "log/m"'),
            "log_collector_config.filename_prefix: expected an absolute path, got 'log/m'",
        ),
        (
            one("logging_config {}"),
            "log_collector_config.filename_prefix: expected an absolute path, got ''",
        ),
        (logging_config(more="custom_logging_config {}"), "custom_logging_config: not supported"),
    ],
)
def test_logging_config_that_is_refused(config: str, text: str) -> None:
    with pytest.raises(ConfigError) as error:
        parsed(config)
    assert error.value.message == f"Model m: logging_config.{text}"


@pytest.mark.parametrize("text", ["", "# nothing\n", "model_config_list {}"])
def test_no_models(text: str) -> None:
    assert parse_model_config(text, PATH) == ()


@pytest.mark.parametrize("text", ["", "# nothing\n"])
def test_no_list_does_not_replace_a_list(text: str) -> None:
    with pytest.raises(FailedPrecondition) as error:
        parse_model_config(text, PATH, parsed(one("")))
    assert error.value.message == (
        "Cannot transition to requested config. It is only legal to transition from one ModelConfigList to another."
    )
    assert parse_model_config("model_config_list {}", PATH, parsed(one(""))) == ()


def test_deprecated_model_type() -> None:
    assert parsed(one("", platform="model_type: TENSORFLOW"))[0].platform == "tensorflow"


@pytest.mark.parametrize("base_path", ["/a/b", "/", "gs://bucket/m", "s3://b", "file:///a"])
def test_absolute_paths_and_uris_are_accepted(base_path: str) -> None:
    assert parsed(one("", base_path=base_path))[0].base_path == base_path


@pytest.mark.parametrize("base_path", ["", "a/b", "./a", "gs:/b", "9p://a"])
def test_relative_base_path(base_path: str) -> None:
    text = f"Expected model m to have an absolute path or URI; got base_path()={base_path}"
    assert refused(one("", base_path=base_path)) == text


def test_duplicate_name_comes_before_any_other_complaint() -> None:
    assert refused(one("", base_path="a", platform=""), one("")) == (
        "Illegal to list model m multiple times in config list"
    )


@pytest.mark.parametrize(
    ("platform", "text"),
    [
        (
            "",
            "Illegal setting neither ModelServerConfig::model_type (deprecated) nor "
            "ModelServerConfig::model_platform, model name is m",
        ),
        (
            'model_type: TENSORFLOW model_platform: "tensorflow"',
            "Illegal setting both ModelServerConfig::model_type (deprecated) and ModelServerConfig::model_platform.",
        ),
        ("model_type: OTHER", "ModelServerConfig::model_type choice 2 not supported."),
        ('model_platform: "pytorch"', "Model m requests unsupported platform pytorch"),
    ],
)
def test_platform(platform: str, text: str) -> None:
    assert refused(one("", platform=platform)) == text


def test_platform_cannot_change() -> None:
    text = (
        "Illegal to change a model's platform. For model m platform was tensorflow "
        "and new platform requested is pytorch"
    )
    assert refused(one("", platform='model_platform: "pytorch"'), previous=parsed(one(""))) == text
    assert parsed(one("", base_path="/other"), previous=parsed(one("")))[0].base_path == "/other"


def test_custom_model_config() -> None:
    with pytest.raises(ConfigError) as error:
        parse_model_config('custom_model_config { type_url: "a/b" }', PATH)
    assert error.value.message == "ModelServer does not yet support custom model config."


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (
            'model_config_list {\n config {\n  nam: "m"\n } }',
            '3:3: Message type "tensorflow.serving.ModelConfig" has no field named "nam".',
        ),
        ("model_config_list {", '1:19: Expected "}".'),
        (
            'model_config_list { config { name: "a" name: "b" } }',
            '1:46: Message type "tensorflow.serving.ModelConfig" should not have multiple "name" fields.',
        ),
        ("@", "1:1: '@': Expected identifier or number, got @."),
    ],
)
def test_syntax_errors_name_file_line_and_column(text: str, why: str) -> None:
    with pytest.raises(ConfigError) as error:
        parse_model_config(text, PATH)
    assert error.value.message == (
        f"Invalid protobuf file: '{PATH}'. Error parsing text-format tensorflow.serving.ModelServerConfig: {why}"
    )


@pytest.mark.parametrize(
    "body",
    [
        "model_version_policy { latest { num_versions: -1 } }",
        "model_version_policy { latest {} all {} }",
        "model_version_policy { specific { versions: 9223372036854775808 } }",
        "name: \udcff",
        "model_type: NOTHING",
        'logging_config { custom_logging_config { [type.googleapis.com/no.such] { a: "b" } } }',
    ],
)
def test_other_syntax_errors(body: str) -> None:
    assert refused(f"config {{ {body} }}").startswith(
        f"Invalid protobuf file: '{PATH}'. Error parsing text-format tensorflow.serving.ModelServerConfig: "
    )


def test_single_model() -> None:
    assert single_model("m", "/models/m") == (ModelConfig("m", "/models/m"),)
    with pytest.raises(ConfigError, match=r"^Expected model m to have an absolute path or URI; got base_path"):
        single_model("m", "models/m")


def test_models_of_a_proto() -> None:
    config = ModelServerConfig()
    config.model_config_list.config.add(name="m", base_path="/m", model_platform="tensorflow")
    assert models_of(config) == (ModelConfig("m", "/m"),)


@pytest.mark.parametrize(
    ("uri", "parts"),
    [
        ("/a/b", ("", "/a/b")),
        ("file:///a/b", ("file", "/a/b")),
        ("file://host/a", ("file", "/a")),
        ("file://host", ("file", "")),
        ("s3.x://b/c", ("s3.x", "/c")),
        ("a/b://c", ("", "a/b://c")),
    ],
)
def test_split_uri(uri: str, parts: tuple[str, str]) -> None:
    assert split_uri(uri) == parts
