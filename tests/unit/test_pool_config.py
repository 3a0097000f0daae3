"""The pool's own file: keys and defaults, the overlay, every error text, and that nothing crashes the parser."""

from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelpool.supervisor.model_policy import BatchingMode, ModelPolicy, SourceSettings
from modelpool.supervisor.placement import Isolation, Order
from modelpool.supervisor.pool_config import PoolFile, PoolFileError, parse, read, reference
from modelpool.supervisor.transition_policy import TransitionPolicy
from modelpool.supervisor.wire.route_table import RequestRules, RetryOnCrash

DEFAULTS: dict[str, Any] = {
    "transition_policy": TransitionPolicy.AVAILABILITY_PRESERVING,
    "required": True,
    "auto_warmup": False,
    "golden_rtol": 1e-5,
    "golden_atol": 1e-6,
    "rollback": True,
    "max_restarts": 20,
    "restart_period_s": 60.0,
    "run_timeout_s": 600.0,
    "host_memory_mb": 0.0,
    "complete_marker": "",
    "devices": ("auto",),
    "replicas": 1,
    "gpu_memory_mb": 0,
    "placement": Order.SPREAD,
    "isolation": Isolation.PROCESS,
    "batching": BatchingMode.FLAGS,
    "latency_target_ms": 0.0,
    "executors": 0,
    "cpus": (),
    "divide_cpus": False,
    "cpu_weight": 100,
    "settle_s": 1.0,
    "servable_versions_always_present": False,
    "fail_if_zero_versions_at_startup": False,
    "record_warmup": False,
    "op_libraries": (),
    "python_modules": (),
    "request_log_max_file_mb": 64.0,
    "request_log_max_files": 10,
    "retry_on_crash": RetryOnCrash.ONCE,
    "quarantine_s": 300.0,
    "max_queued_requests": 1000,
    "poison_dir": "",
}
KEYS = ", ".join(DEFAULTS)
DEVICES = (
    'expected "auto", "all", or names of devices ("cpu", "gpu:0", "gpu:0:mig:1", "GPU-...", "MIG-..."), '
    'of which "auto", "all" stand alone'
)
NUMBER = "expected a finite number of at least 0"


def refusal(text: str) -> str:
    with pytest.raises(PoolFileError) as error:
        parse(text, "pool.toml")
    return error.value.message


def test_keys_and_defaults() -> None:
    assert asdict(ModelPolicy()) == DEFAULTS
    assert asdict(SourceSettings()) == {"cache_dir": ""}
    assert parse("", "pool.toml") == PoolFile() == read("")
    assert PoolFile().policy("any") == ModelPolicy()


def test_what_frontends_are_told() -> None:
    pool = parse('[models.m]\nretry_on_crash = "never"\nmax_queued_requests = 7\npoison_dir = "/p"', "pool.toml")
    assert pool.policy("m").request_rules() == RequestRules(RetryOnCrash.NEVER, 300.0, 7, "/p")
    assert ModelPolicy().request_rules() == RequestRules()


def test_cpus() -> None:
    pool = parse('[models.m]\ncpus = ["4-6", "1", "5"]', "pool.toml")
    assert pool.policy("m").cpu_numbers() == (1, 4, 5, 6)
    assert ModelPolicy().cpu_numbers() == ()
    assert "cpus: expected an array of numbers or ranges of CPUs" in refusal('[models.m]\ncpus = ["a"]')


def test_a_models_table_lies_over_the_defaults() -> None:
    pool = parse(
        """
        [models.big]  # may stand before the defaults
        transition_policy = "resource_preserving"
        settle_s = 5

        [models."my.model"]
        rollback = true

        [models.bare]

        [defaults]
        rollback = false
        settle_s = 2.5
        complete_marker = "_SUCCESS"

        [source]
        cache_dir = "/var/cache/modelpool"
        """,
        "pool.toml",
    )
    base = ModelPolicy(rollback=False, settle_s=2.5, complete_marker="_SUCCESS")
    assert pool.defaults == pool.policy("unnamed") == pool.policy("bare") == base
    assert pool.policy("my.model") == ModelPolicy(settle_s=2.5, complete_marker="_SUCCESS")
    big = pool.policy("big")
    assert (big.transition_policy, big.rollback) == (TransitionPolicy.RESOURCE_PRESERVING, False)
    assert (big.settle_s, type(big.settle_s)) == (5.0, float)
    assert set(pool.models) == {"big", "my.model", "bare"}
    assert pool.source == SourceSettings("/var/cache/modelpool")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[defaults]\ngolden_rtl = 1", ": [defaults]: unknown key golden_rtl: did you mean golden_rtol?"),
        ("[models.m]\nzzz = 1", f": [models.m]: unknown key zzz: expected one of {KEYS}"),
        (
            '[models."a b"]\nauto_warm_up = true',
            ': [models."a b"]: unknown key auto_warm_up: did you mean auto_warmup?',
        ),
        ("[defaults]\nqqqqq = {}", f": [defaults]: unknown key qqqqq: expected one of {KEYS}"),
        ("[source]\ncachedir = ''", ": [source]: unknown key cachedir: did you mean cache_dir?"),
        ("[source]\n'' = 1", ': [source]: unknown key "": expected one of cache_dir'),
        ("[default]", ": unknown table [default]: did you mean [defaults]?"),
        ("[[default]]", ": unknown table [default]: did you mean [defaults]?"),
        ("[zzz]", ": unknown table [zzz]: expected one of [defaults], [models], [source]"),
        ("settle_s = 1", ": key settle_s stands outside of any table: expected it in [defaults]"),
        ("cache_dir = ''", ": key cache_dir stands outside of any table: expected it in [source]"),
        ("rolback = true", ": unknown key rolback outside of any table: did you mean rollback?"),
        ("defaults = 1", ": [defaults]: expected a table, got 1"),
        ("[[source]]", ": [source]: expected a table, got an array"),
        ("[models]\nsettle_s = 1", ": [models.settle_s]: expected a table, got 1"),
        (
            "[models.a.b]\nsettle_s = 1",
            ': [models.a]: unknown table b: a model\'s name with dots is written in quotes: [models."a.b"]',
        ),
    ],
)
def test_unknown_names(text: str, message: str) -> None:
    assert refusal(text) == f"pool.toml{message}"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("settle_s = true", f"{NUMBER}, got true"),
        ("settle_s = nan", f"{NUMBER}, got nan"),
        ("settle_s = inf", f"{NUMBER}, got inf"),
        ("settle_s = -0.5", f"{NUMBER}, got -0.5"),
        ("settle_s = '1'", f'{NUMBER}, got "1"'),
        (f"settle_s = 1{'0' * 400}", f"{NUMBER}, got an integer of 1329 bits"),
        (f"settle_s = 0x{'f' * 4000}", f"{NUMBER}, got an integer of 16000 bits"),
        ("rollback = 1", "expected true or false, got 1"),
        ("rollback = {}", "expected true or false, got a table"),
        ("rollback = 1979-05-27", "expected true or false, got 1979-05-27"),
        ("complete_marker = ['x']", "expected the name of a file, without a folder, got an array"),
        ("complete_marker = 'a/b'", 'expected the name of a file, without a folder, got "a/b"'),
        ("complete_marker = '..'", 'expected the name of a file, without a folder, got ".."'),
        (
            "transition_policy = 'eager'",
            'expected one of "availability_preserving", "resource_preserving", got "eager"',
        ),
        ("op_libraries = '/a.so'", 'expected an array of absolute paths, got "/a.so"'),
        ("op_libraries = ['/a.so', 'b.so']", 'expected an array of absolute paths, got "b.so" in it'),
        ("op_libraries = ['./b.so']", 'expected an array of absolute paths, got "./b.so" in it'),
        ("op_libraries = ['']", 'expected an array of absolute paths, got "" in it'),
        ("op_libraries = [1]", "expected an array of absolute paths, got 1 in it"),
        ("op_libraries = [['/a.so']]", "expected an array of absolute paths, got an array in it"),
        ("python_modules = ['a-b']", 'expected an array of names of Python modules, got "a-b" in it'),
        ("python_modules = ['a', '.b']", 'expected an array of names of Python modules, got ".b" in it'),
        ("python_modules = ['a..b']", 'expected an array of names of Python modules, got "a..b" in it'),
        ("python_modules = {}", "expected an array of names of Python modules, got a table"),
        ("request_log_max_file_mb = 0", "expected a finite number of at least 0.001, got 0"),
        ("request_log_max_files = 0", "expected an integer from 1 to 2147483647, got 0"),
        ("request_log_max_files = 1.0", "expected an integer from 1 to 2147483647, got 1.0"),
        ("request_log_max_files = true", "expected an integer from 1 to 2147483647, got true"),
        ("request_log_max_files = 2147483648", "expected an integer from 1 to 2147483647, got 2147483648"),
        ("replicas = 0", "expected an integer from 1 to 256, got 0"),
        ("replicas = 257", "expected an integer from 1 to 256, got 257"),
        ("gpu_memory_mb = -1", "expected an integer from 0 to 16777216, got -1"),
        ("placement = 'any'", 'expected one of "spread", "pack", got "any"'),
        ("isolation = 'thread'", 'expected one of "process", got "thread"'),
        ("devices = 'gpu0'", f'{DEVICES}, got "gpu0"'),
        ("devices = 'gpu:x'", f'{DEVICES}, got "gpu:x"'),
        ("devices = ['gpu:0', 'tpu:1']", f'{DEVICES}, got "tpu:1" in it'),
        ("devices = ['gpu:0', 'auto']", f"{DEVICES}, got an array"),
        ("devices = ['all', 'all']", f"{DEVICES}, got an array"),
        ("devices = []", f"{DEVICES}, got an array"),
        ("devices = 0", f"{DEVICES}, got 0"),
        ("retry_on_crash = true", 'expected one of "once", "never", got true'),
        ("max_queued_requests = 0", "expected an integer from 1 to 8000, got 0"),
        ("max_queued_requests = 8001", "expected an integer from 1 to 8000, got 8001"),
        ('poison_dir = "here"', 'expected the absolute path of a folder, or nothing, got "here"'),
        ("transition_policy = 1", 'expected one of "availability_preserving", "resource_preserving", got 1'),
    ],
)
def test_wrong_values(line: str, message: str) -> None:
    name = line.partition(" ")[0]
    assert refusal(f"[models.m]\n{line}") == f"pool.toml: [models.m]: {name}: {message}"


def test_arrays_and_integers() -> None:
    text = """
        [defaults]
        op_libraries = ["/lib/a.so"]
        request_log_max_files = 3
        request_log_max_file_mb = 0.5
        [models.m]
        op_libraries = ["/lib/b.so", "/lib/./c.so"]
        python_modules = ["tensorflow_text", "a.b_2.c"]
        [models.bare]
        op_libraries = []
        """
    pool = parse(text, "pool.toml")
    assert pool.policy("m").op_libraries == ("/lib/b.so", "/lib/./c.so")
    assert pool.policy("m").python_modules == ("tensorflow_text", "a.b_2.c")
    assert (pool.policy("m").request_log_max_files, pool.policy("m").request_log_max_file_mb) == (3, 0.5)
    assert pool.policy("bare").op_libraries == ()
    assert pool.policy("other").op_libraries == ("/lib/a.so",)


@pytest.mark.parametrize(
    ("text", "devices"),
    [
        ("'auto'", ("auto",)),
        ("['all']", ("all",)),
        ("'cpu'", ("cpu",)),
        ("'gpu:1'", ("gpu:1",)),
        (
            "['gpu:0:mig:1', 'GPU-5fa2-1', 'MIG-GPU-5fa2/1/0', 'cpu']",
            ("gpu:0:mig:1", "GPU-5fa2-1", "MIG-GPU-5fa2/1/0", "cpu"),
        ),
    ],
)
def test_devices(text: str, devices: tuple[str, ...]) -> None:
    assert parse(f"[models.m]\ndevices = {text}", "pool.toml").policy("m").devices == devices


def test_a_string_is_expected() -> None:
    assert refusal("[source]\ncache_dir = 3") == "pool.toml: [source]: cache_dir: expected a string, got 3"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[defaults]\nsettle_s 1", "pool.toml:2:10: Expected '=' after a key in a key/value pair"),
        ("[defaults]\nsettle_s = 1\nsettle_s = 2", "pool.toml:3:13: Cannot overwrite a value"),
        ("[defaults]\nsettle_s =", "pool.toml:2:11: Invalid value"),
        ('a = """\nb\n', "pool.toml:3:1: Unterminated string"),
    ],
)
def test_syntax_errors_say_line_and_column(text: str, message: str) -> None:
    assert refusal(text) == message


@pytest.mark.parametrize("text", ["a = " + "9" * 5000, "a = " + "[" * 100_000])
def test_what_tomllib_cannot_digest_is_refused_too(text: str) -> None:
    assert refusal(text).startswith("pool.toml: ")


def test_reading(tmp_path: Path) -> None:
    path = tmp_path / "pool.toml"
    missing = f"pool_config_file: cannot read '{path}': No such file or directory"
    with pytest.raises(PoolFileError) as error:
        read(str(path))
    assert error.value.message == missing
    path.write_bytes(b"[defaults] # \xff")
    with pytest.raises(PoolFileError) as error:
        read(str(path))
    assert error.value.message == f"{path}: expected UTF-8, got 0xff at byte 13"
    path.write_bytes(b"[defaults]\r\nrollback = false\r\n")
    assert read(str(path)).defaults == ModelPolicy(rollback=False)


def test_the_reference_has_every_key_with_its_default() -> None:
    text = reference()
    assert parse(text, "reference") == PoolFile()
    for kind in (ModelPolicy, SourceSettings):
        for each in fields(kind):
            assert text.count(f"\n{each.name} = ") == 1
    assert max(map(len, text.splitlines())) <= 102


policies = st.fixed_dictionaries(
    {},
    optional={
        "transition_policy": st.sampled_from([each.value for each in TransitionPolicy]),
        "auto_warmup": st.booleans(),
        "golden_rtol": st.floats(0, allow_infinity=False, allow_nan=False),
        "settle_s": st.integers(0, 10**6),
        "complete_marker": st.text("abc._ ", max_size=5).filter(lambda name: name not in (".", "..")),
    },
)


def _lines(values: dict[str, Any]) -> str:
    return "".join(
        f"{name} = {str(value).lower() if isinstance(value, bool) else repr(value)}\n" for name, value in values.items()
    )


@settings(max_examples=50)
@given(policies, policies)
def test_overlay(defaults: dict[str, Any], own: dict[str, Any]) -> None:
    pool = parse(f"[defaults]\n{_lines(defaults)}[models.'m.1']\n{_lines(own)}", "pool.toml")
    assert asdict(pool.policy("m.1")) == DEFAULTS | defaults | own
    assert asdict(pool.policy("other")) == DEFAULTS | defaults


@settings(max_examples=100)
@given(st.text() | st.lists(st.sampled_from('[]{}."=,\n#\\ 1e9-:tmodels')).map("".join))
def test_any_text_is_taken_or_refused_with_the_name_of_the_file(text: str) -> None:
    try:
        parse(text, "pool.toml")
    except PoolFileError as error:
        message = error.message
    else:
        return
    assert message.startswith("pool.toml:")
