"""Calls of models without a task, against a fake of pyvoy: their messages, answers, and clients that go."""

import asyncio
import gc
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelpool.frontend import grpc_direct
from modelpool.frontend.callback import CallbackFailed
from modelpool.frontend.envoy_loop import GuestLoop
from modelpool.frontend.grpc_frames import plain
from modelpool.frontend.in_flight import Pending
from modelpool.supervisor.wire.protos import GetModelStatusRequest
from modelpool.supervisor.wire.status import Code
from tests.unit.pyvoy_world import LIMIT, REQUEST, STATUS, Client, Scene, run


def test_a_call_and_its_answer() -> None:
    async def scenario(scene: Scene) -> Any:
        client = Client(scene.pyvoy).start().give(plain(REQUEST))
        assert await scene.sent_to_worker() == [REQUEST]
        assert client.was_begun
        scene.bench.reply(7, 1, b"y")
        return await client.answer(), scene.told, scene.bench.core.in_flight()

    answer, told, in_flight = run(scenario)
    assert answer == (Code.OK, plain(b"y"))
    assert told == [("Predict", "m", Code.OK)]
    assert in_flight == {7: 0}


@pytest.mark.parametrize("code", [Code.INVALID_ARGUMENT, Code.UNAVAILABLE])
def test_an_error_of_the_worker(code: Code) -> None:
    async def scenario(scene: Scene) -> Any:
        client = Client(scene.pyvoy).start().give(plain(REQUEST))
        await scene.sent_to_worker()
        scene.bench.reply(7, 1, b"why", code, hint_ms=1500 if code is Code.UNAVAILABLE else 0)
        answer = await client.answer()
        return answer, dict(client.sent[-1]["headers"]).get(b"retry-after"), scene.told

    answer, retry_after, told = run(scenario)
    assert answer == (code, b"why")
    assert retry_after == (b"2" if code is Code.UNAVAILABLE else None)
    assert told == [("Predict", "m", code)]


@pytest.mark.parametrize(
    ("message", "code", "model"),
    [
        (b"", Code.INVALID_ARGUMENT, ""),
        (b"\xff", Code.INTERNAL, ""),
        (GetModelStatusRequest(model_spec={"name": "n"}).SerializeToString(), Code.NOT_FOUND, "n"),
    ],
)
def test_what_is_not_sent_to_a_worker(message: bytes, code: Code, model: str) -> None:
    async def scenario(scene: Scene) -> Any:
        answer = await Client(scene.pyvoy).start().give(plain(message)).answer()
        return answer[0], scene.told, scene.bench.links[7].sent

    assert run(scenario) == (code, [("Predict", model, code)], [])


def test_the_deadline_is_an_answer() -> None:
    async def scenario(scene: Scene) -> Any:
        client = Client(scene.pyvoy, headers=((b"grpc-timeout", b"20m"),)).start().give(plain(REQUEST))
        answer = await client.answer()
        return answer[0], scene.told, scene.bench.links[7].cancelled

    assert run(scenario) == (Code.DEADLINE_EXCEEDED, [("Predict", "m", Code.DEADLINE_EXCEEDED)], [1])


@pytest.mark.parametrize(
    "parts",
    [(b"\0\0\0\0", b"\x05" + REQUEST), (plain(REQUEST), b""), (b"", plain(REQUEST)), (b"\0", plain(REQUEST)[1:])],
)
def test_a_message_however_it_is_cut(parts: tuple[bytes, bytes]) -> None:
    async def scenario(scene: Scene) -> Any:
        client = Client(scene.pyvoy).start()
        for number, part in enumerate(parts):
            async with asyncio.timeout(10):
                while not client.asked and not scene.bench.links[7].sent:  # noqa: ASYNC110 - nobody tells
                    await asyncio.sleep(0.001)
            if client.asked:
                client.give(part, more_body=number == 0)
        assert await scene.sent_to_worker() == [REQUEST]
        scene.bench.reply(7, 1, b"y")
        return await client.answer(), scene.told

    assert len(REQUEST) == 5
    assert run(scenario) == ((Code.OK, plain(b"y")), [("Predict", "m", Code.OK)])


@pytest.mark.parametrize("apart", [0, 1])
@given(cuts=st.lists(st.integers(0, 25), max_size=6), size=st.integers(0, 15), is_late=st.booleans())
def test_a_message_in_any_number_of_parts(apart: int, cuts: list[int], size: int, is_late: bool) -> None:
    """Put together in pyvoy's thread or by a task; whether its last part tells of the end, or an empty one after it."""
    request = GetModelStatusRequest(model_spec={"name": "m", "signature_name": "s" * size}).SerializeToString()
    whole = plain(request)
    ends = [*sorted(min(cut, len(whole)) for cut in cuts), len(whole)]
    parts = [whole[begin:end] for begin, end in zip([0, *ends], ends, strict=False)]

    async def scenario(scene: Scene) -> Any:
        client = Client(scene.pyvoy).start()
        for number, part in enumerate(parts, 1):
            async with asyncio.timeout(10):
                while not client.asked and not scene.bench.links[7].sent:  # noqa: ASYNC110 - nobody tells
                    await asyncio.sleep(0)
            if client.asked:
                client.give(part, more_body=is_late or number < len(parts))
        assert await scene.sent_to_worker() == [request]
        scene.bench.reply(7, 1, b"y")
        return await client.answer(), scene.told, len(scene.app.apart)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(grpc_direct, "_MOST_APART", apart)
        assert run(scenario) == ((Code.OK, plain(b"y")), [("Predict", "m", Code.OK)], 0)


@pytest.mark.parametrize(
    ("begin", "rest", "code"),
    [
        (plain(REQUEST)[:6], b"", Code.INTERNAL),
        (plain(bytes(LIMIT + 1))[:9], b"", Code.RESOURCE_EXHAUSTED),
        (b"\x01" + plain(REQUEST)[1:6], plain(REQUEST)[6:], Code.INTERNAL),
        (plain(REQUEST)[:6], plain(REQUEST)[6:] + b"x", Code.OK),
    ],
)
def test_what_no_message_becomes_of(begin: bytes, rest: bytes, code: Code) -> None:
    """One that ends too early, is too large, or packed in no known way; what is behind one counts for nothing."""

    async def scenario(scene: Scene) -> Any:
        client = Client(scene.pyvoy).start().give(begin, more_body=True)
        if code is not Code.RESOURCE_EXHAUSTED:
            await client.is_asked()
            client.give(rest)
        if code is Code.OK:
            await scene.sent_to_worker()
            scene.bench.reply(7, 1, b"y")
        return (await client.answer())[0], len(scene.app.apart)

    assert run(scenario) == (code, 0)


def test_a_small_message_in_parts_is_no_task() -> None:
    async def scenario(scene: Scene) -> Any:
        client = Client(scene.pyvoy).start()
        for part in (plain(REQUEST)[:2], plain(REQUEST)[2:8]):
            client.give(part, more_body=True)
            assert len(client.asked) == 1, "at once, in pyvoy's thread"
        client.give(plain(REQUEST)[8:])
        assert await scene.sent_to_worker() == [REQUEST]
        return scene.intake.requests

    assert run(scenario) == 0


def test_a_client_that_goes_while_it_waits() -> None:
    """It is asked after once the call has been there for a moment; the end of the body, come late, is no news."""

    async def scenario(scene: Scene) -> Any:
        client = Client(scene.pyvoy).start().give(plain(REQUEST), more_body=True)
        for is_end in (False, True):
            async with asyncio.timeout(10):
                while not client.asked:  # noqa: ASYNC110 - nobody tells
                    await asyncio.sleep(0.001)
            if is_end:
                client.go()
            else:
                client.give(b"")
        told = await scene.finished()
        scene.bench.reply(7, 1, b"late")
        return told, client.sent, scene.bench.links[7].cancelled, scene.bench.core.in_flight()

    assert run(scenario) == ([("Predict", "m", Code.CANCELLED)], [], [1], {7: 0})


def test_a_client_that_is_gone_before_its_message_came() -> None:
    async def scenario(scene: Scene) -> Any:
        client = Client(scene.pyvoy).start()
        client.go()
        other = Client(scene.pyvoy).start().give(plain(REQUEST))
        assert await scene.sent_to_worker() == [REQUEST]
        scene.bench.reply(7, 1, b"y")
        await other.answer()
        return client.sent, scene.told

    assert run(scenario) == ([], [("Predict", "", Code.CANCELLED), ("Predict", "m", Code.OK)])


def test_a_client_that_goes_in_the_middle_of_its_message() -> None:
    async def scenario(scene: Scene) -> Any:
        client = Client(scene.pyvoy).start().give(plain(REQUEST)[:3], more_body=True)
        await client.is_asked()
        client.go()
        return await scene.finished(), client.sent

    assert run(scenario) == ([("Predict", "", Code.CANCELLED)], [])


def test_what_goes_by_a_task() -> None:
    """Methods that ask no model, and everything when replies may be packed or the server drains."""

    async def scenario(scene: Scene) -> Any:
        client = Client(scene.pyvoy, STATUS).start()
        async with asyncio.timeout(10):
            while not client.asked:  # noqa: ASYNC110 - nobody tells
                await asyncio.sleep(0.001)
        answer = await client.give(plain(REQUEST)).answer()
        scene.app.drain()
        late = Client(scene.pyvoy).start()
        return client.was_begun, answer[0], late.was_begun, (await late.answer())[0]

    assert run(scenario) == (False, Code.OK, False, Code.UNAVAILABLE)

    async def packed(scene: Scene) -> Any:
        return Client(scene.pyvoy).start().was_begun

    assert run(packed, {"grpc.default_compression_algorithm": "2"}) is False


def test_many_at_once_get_their_own_answers() -> None:
    async def scenario(scene: Scene) -> Any:
        clients = [Client(scene.pyvoy).start() for _ in range(50)]
        for client in clients:
            client.give(plain(REQUEST))
        await scene.sent_to_worker(50)
        for request_id in reversed(scene.bench.links[7].ids):
            scene.bench.reply(7, request_id, b"%d" % request_id)
        return [await client.answer() for client in clients]

    assert run(scenario) == [(Code.OK, plain(b"%d" % (number + 1))) for number in range(50)]


def test_a_bug_of_ours_in_pyvoys_thread_ends_the_process() -> None:
    """By the handler of the loop, as one in any callback."""

    def broken() -> None:
        raise ZeroDivisionError

    async def main() -> Any:
        loop = asyncio.get_running_loop()
        failed: asyncio.Future[Any] = loop.create_future()
        loop.set_exception_handler(lambda _, context: failed.set_result(context["exception"]))
        guest = GuestLoop(loop)  # type: ignore[abstract]
        with pytest.raises(ZeroDivisionError):
            guest.call_soon_threadsafe(broken)
        async with asyncio.timeout(10):
            return await failed

    assert isinstance(asyncio.run(main()), CallbackFailed)


@pytest.mark.parametrize("raises", ["pyvoy", "its future"])
def test_a_client_that_cannot_be_asked_after_ends_the_process(raises: str) -> None:
    """By the handler of the loop: else no departure would be noticed any more, and nobody would know."""

    async def scenario(scene: Scene) -> Any:
        loop = asyncio.get_running_loop()
        failed: asyncio.Future[Any] = loop.create_future()
        loop.set_exception_handler(lambda _, context: failed.set_result(context["exception"]))
        client = Client(scene.pyvoy).start().give(plain(REQUEST))
        client.is_broken = raises == "pyvoy"
        async with asyncio.timeout(10):
            if not client.is_broken:
                while not client.asked:  # noqa: ASYNC110 - nobody tells
                    await asyncio.sleep(0.001)
                client.asked[0].set_exception(ZeroDivisionError())
            return await failed

    assert isinstance(run(scenario), CallbackFailed)


def test_a_call_that_has_ended_is_no_garbage() -> None:
    """Its message may be big, and garbage is collected when it pleases."""

    async def scenario(scene: Scene) -> list[type]:
        gc.collect()
        gc.set_debug(gc.DEBUG_SAVEALL)
        try:
            client = Client(scene.pyvoy).start().give(plain(REQUEST))
            await scene.sent_to_worker()
            scene.bench.reply(7, scene.bench.links[7].ids[0], b"yes")
            assert await client.answer() == (Code.OK, plain(b"yes"))
            del client
            gc.collect()
            return [type(each) for each in gc.garbage]
        finally:
            gc.set_debug(0)
            gc.garbage.clear()

    assert not any(issubclass(each, Pending) for each in run(scenario))
