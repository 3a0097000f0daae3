"""Metrics of a process, their sum over processes that come and go, and the page."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelpool.supervisor import metrics, metrics_text
from modelpool.supervisor.metrics import MAX_DEAD_SERIES, MetricsBook, Series, Source
from modelpool.supervisor.wire import codec
from modelpool.supervisor.wire import metric_families as families
from modelpool.supervisor.wire.ids import Incarnation, ServableId
from modelpool.supervisor.wire.metric_messages import MetricSample, MetricsReport
from modelpool.supervisor.wire.metrics import Registry, pack
from modelpool.supervisor.wire.sockets import Peer
from tests.prometheus_text import parse


def worker(number: int) -> Source:
    return (Peer.WORKER, Incarnation(number))


def book_of(registry: Registry) -> MetricsBook:
    book = MetricsBook()
    book.joined(worker(1))
    book.report(worker(1), registry.changed())
    return book


def count(book: MetricsBook, model: str = "m", code: str = "OK") -> float:
    return book.series()[families.REQUEST_COUNT.name].get((model, code), [0.0])[0]


def add(registry: Registry, amount: float = 1.0, model: str = "m") -> None:
    registry.counter(families.REQUEST_COUNT, model, "OK").add(amount)


# -- one process -------------------------------------------------------------------------------------------------


def test_only_what_changed_is_reported() -> None:
    registry = Registry()
    add(registry)
    registry.gauge(families.PAYLOAD_IN_FLIGHT).set(5)
    (first, second) = registry.changed()
    assert (first, second.values) == (
        MetricSample(":tensorflow:serving:request_count", ("m", "OK"), pack([1])),
        pack([5]),
    )
    assert registry.changed() == ()
    registry.gauge(families.PAYLOAD_IN_FLIGHT).set(5)
    assert registry.changed() == ()
    add(registry)
    (again,) = registry.changed()
    assert again.values == pack([2])
    registry.lost((again,))
    assert registry.changed() == (again,)


def test_a_report_travels() -> None:
    registry = Registry()
    registry.histogram(families.STAGE_SECONDS, "m", "1", "s", "cpu#0", "predict", "queue").observe(0.25)
    report = MetricsReport(registry.changed())
    assert codec.decode(codec.encode(report)) == report


def test_a_bucket_takes_its_bound() -> None:
    registry = Registry()
    histogram = registry.histogram(families.REQUEST_EXAMPLE_COUNTS, "m")
    for rows in (1, 2, 3, 16384, 16385):
        histogram.observe(rows)
    assert histogram.values[0] == 1 + 2 + 3 + 16384 + 16385
    assert histogram.values[1:4] == [1, 1, 1]
    assert histogram.values[-2:] == [1, 1]


# -- the page ----------------------------------------------------------------------------------------------------


def test_the_page_is_the_exporters() -> None:
    registry = Registry()
    add(registry, 3, 'a"b\\c\nd')
    for microseconds in (10, 11, 50, 5_000_000_000):
        registry.histogram(families.REQUEST_LATENCY, "m", "Predict", "GRPC").observe(microseconds)
    text = metrics_text.page(book_of(registry).series()).decode()
    lines = text.split("\n")
    assert "HELP" not in text
    assert ':tensorflow:serving:request_count{model_name="a\\"b\\\\c\\nd",status="OK"} 3' in lines
    at = lines.index("# TYPE :tensorflow:serving:request_latency histogram")
    labels = 'model_name="m",API="Predict",entrypoint="GRPC"'
    bucket = ":tensorflow:serving:request_latency_bucket"
    assert lines[at + 1 : at + 5] == [
        f'{bucket}{{{labels},le="10"}} 1',
        f'{bucket}{{{labels},le="18"}} 2',
        f'{bucket}{{{labels},le="32.4"}} 2',
        f'{bucket}{{{labels},le="58.32"}} 3',
    ]
    assert lines[at + 33 : at + 37] == [
        f'{bucket}{{{labels},le="1.47476e+09"}} 3',
        f'{bucket}{{{labels},le="+Inf"}} 4',
        f":tensorflow:serving:request_latency_sum{{{labels}}} 5e+09",
        f":tensorflow:serving:request_latency_count{{{labels}}} 4",
    ]
    assert text.endswith("\n")


def test_every_family_has_its_type_line_in_order() -> None:
    text = metrics_text.page(MetricsBook().series()).decode()
    page = parse(text)
    assert list(page.kinds) == sorted(families.FAMILIES)
    assert not page.values
    assert page.kinds[":tensorflow:serving:request_count"] == "counter"


def test_numbers_of_ours_are_written_out() -> None:
    registry = Registry()
    registry.gauge(families.PAYLOAD_IN_FLIGHT).set(123456789012)
    registry.histogram(families.STAGE_SECONDS, "m", "1", "s", "cpu#0", "predict", "queue").observe(0.1234567891)
    text = metrics_text.page(book_of(registry).series()).decode()
    assert "modelpool_frontend_payload_in_flight_bytes{} 123456789012\n" in text
    assert 'stage="queue"} 0.1234567891\n' in text


@given(st.text(), st.text(), st.integers(0, 2**53))
def test_any_label_reads_back(model: str, status: str, number: int) -> None:
    series: Series = {families.REQUEST_COUNT.name: {(model, status): [float(number)]}}
    page = parse(metrics_text.page(series).decode())
    assert page.value(families.REQUEST_COUNT.name, model_name=model, status=status) == number


# -- many processes ----------------------------------------------------------------------------------------------


def test_counts_of_the_dead_stay_and_their_gauges_go() -> None:
    book, old, new = MetricsBook(), Registry(), Registry()
    for number, registry in ((1, old), (2, new)):
        book.joined(worker(number))
        add(registry, 5)
        registry.gauge(families.PAYLOAD_IN_FLIGHT).set(7)
        book.report(worker(number), registry.changed())
    assert (count(book), book.series()[families.PAYLOAD_IN_FLIGHT.name][()]) == (10, [14])
    add(old, 1)
    late = old.changed()
    book.ended(worker(1))
    assert (count(book), book.series()[families.PAYLOAD_IN_FLIGHT.name][()]) == (10, [7])
    book.report(worker(1), late)
    assert count(book) == 11


@pytest.mark.parametrize(
    "sample",
    [
        MetricSample("nonsense", (), pack([1])),
        MetricSample(families.REQUEST_COUNT.name, ("m",), pack([9])),
        MetricSample(families.REQUEST_COUNT.name, ("m", "OK"), pack([9, 9])),
        MetricSample(families.REQUEST_COUNT.name, ("m", "OK"), b"123"),
        MetricSample(families.REQUEST_COUNT.name, ("m", "OK"), pack([float("inf")])),
        MetricSample(families.REQUEST_COUNT.name, ("m", "OK"), pack([float("nan")])),
        MetricSample(families.REQUEST_COUNT.name, ("m", "OK"), pack([1])),
    ],
)
def test_a_sample_without_sense_changes_nothing(sample: MetricSample) -> None:
    registry = Registry()
    add(registry, 2)
    book = book_of(registry)
    before = book.series()
    book.report(worker(1), [sample])
    book.report(worker(99), registry.changed())
    assert book.series() == before


def test_versions_that_are_gone_are_forgotten() -> None:
    book = MetricsBook()
    for number in (1, 2):
        registry = Registry()
        registry.counter(families.WORKER_REQUESTS, "m", str(number), "predict", "OK").add()
        book.joined(worker(number))
        book.report(worker(number), registry.changed())
        book.ended(worker(number))
    for number in range(10, 10 + metrics.MAX_UNFOLDED):
        book.joined(worker(number))
        book.ended(worker(number))

    def versions() -> set[str]:
        return {labels[1] for labels in book.series()[families.WORKER_REQUESTS.name]}

    book.retain([ServableId("m", 1), ServableId("m", 2)])
    assert versions() == {"1", "2"}
    book.retain([ServableId("m", 2)])
    assert versions() == {"2"}


def test_what_is_kept_of_the_dead_is_bounded() -> None:
    book = MetricsBook()
    for number in range(metrics.MAX_UNFOLDED + 2):
        registry = Registry()
        for model in range(MAX_DEAD_SERIES):
            add(registry, 1, f"{number}-{model}" if number < 2 else "m")
            if number >= 2:
                break
        book.joined(worker(number))
        book.report(worker(number), registry.changed())
        book.ended(worker(number))
    book.retain([])
    assert len(book.series()[families.REQUEST_COUNT.name]) == MAX_DEAD_SERIES + 1
    assert count(book) == metrics.MAX_UNFOLDED


Step = tuple[str, int, int]
_STEPS = st.lists(
    st.tuples(st.sampled_from(["add", "report", "end"]), st.integers(0, 2), st.integers(0, 5)), max_size=80
)


@given(_STEPS)
def test_no_counter_goes_back(steps: list[Step]) -> None:
    """Three places, each filled by one process after another; reports come late, or never."""
    book, heard = MetricsBook(), {}
    numbers = [0, 1, 2]
    registries = {number: Registry() for number in numbers}
    old: list[int] = []
    for number in numbers:
        book.joined(worker(number))
    last = 0.0
    for what, place, amount in steps:
        number = numbers[place]
        if what == "add":
            add(registries[number], amount)
        elif what == "report":
            for each in (number, *old[-2:]):  # those that have ended still have a report on its way
                for sample in registries[each].changed():
                    book.report(worker(each), [sample])
                    heard[each] = registries[each].counter(families.REQUEST_COUNT, "m", "OK").values[0]
        else:
            book.ended(worker(number))
            old.append(number)
            numbers[place] = max(registries) + 1
            registries[numbers[place]] = Registry()
            book.joined(worker(numbers[place]))
        now = count(book)
        assert now >= last
        assert now == sum(heard.values())
        last = now
