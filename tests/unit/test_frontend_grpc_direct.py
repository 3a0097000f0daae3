"""Calls of models without a task, against a fake of pyvoy: its thread, its futures, and clients that go."""

import asyncio
import gc
import itertools
import threading
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from modelpool.frontend import grpc_direct
from modelpool.frontend.callback import CallbackFailed
from modelpool.frontend.envoy_loop import Begun, GuestLoop
from modelpool.frontend.forward import Forward
from modelpool.frontend.grpc_asgi import GrpcApp
from modelpool.frontend.grpc_direct import DirectGrpc
from modelpool.frontend.grpc_frames import plain
from modelpool.frontend.grpc_handlers import ServingHandlers
from modelpool.frontend.in_flight import Pending
from modelpool.frontend.intake import Intake
from modelpool.frontend.model_queue import FULL
from modelpool.supervisor.wire.protos import GetModelStatusRequest
from modelpool.supervisor.wire.status import Code, Status
from tests.unit.core_bench import Bench

REQUEST: bytes = GetModelStatusRequest(model_spec={"name": "m"}).SerializeToString()
PREDICT = "/tensorflow.serving.PredictionService/Predict"
STATUS = "/tensorflow.serving.ModelService/GetModelStatus"
LIMIT = 1000
PLACES = 3
GONE = {"type": "http.disconnect"}


class Pyvoy:
    """Does what pyvoy does, in a thread of its own, with the loop and the application that it is given."""

    def __init__(self, app: Any, host: asyncio.AbstractEventLoop) -> None:
        self.app = app
        self.loop = GuestLoop(host)  # type: ignore[abstract]

    def run(self, work: Callable[[], None]) -> None:
        """As pyvoy has something done for which it has no time to wait."""
        thread = threading.Thread(target=lambda: self.loop.call_soon_threadsafe(work))
        thread.start()
        thread.join(10)


class Client:
    """One call. Each part of its body, and its end, is given to who asks for it."""

    def __init__(self, pyvoy: Pyvoy, path: str = PREDICT, headers: tuple[tuple[bytes, bytes], ...] = ()) -> None:
        self._pyvoy = pyvoy
        self._scope = {
            "type": "http",
            "method": "POST",
            "path": path,
            "headers": [(b"content-type", b"application/grpc"), (b"te", b"trailers"), *headers],
        }
        self.asked: list[Any] = []
        self.sent: list[Any] = []
        self.was_begun = self.is_broken = False
        self.ended = asyncio.Event()
        self._host = asyncio.get_running_loop()

    def start(self) -> "Client":
        def start() -> None:
            work = self._pyvoy.app(self._scope, self._receive, self._send)
            self.was_begun = isinstance(work, Begun)
            self._pyvoy.loop.create_task(work).add_done_callback(lambda future: None)

        self._pyvoy.run(start)
        return self

    def give(self, body: bytes, more_body: bool = False) -> "Client":
        self._answer({"type": "http.request", "body": body, "more_body": more_body})
        return self

    def go(self) -> None:
        self._answer(GONE)

    def _answer(self, event: Any) -> None:
        future = self.asked.pop(0)
        self._pyvoy.run(lambda: future.set_result(event))

    def _receive(self) -> Any:
        if self.is_broken:
            raise ZeroDivisionError
        self.asked.append(self._pyvoy.loop.create_future())
        return self.asked[-1]

    def _send(self, event: Any) -> Awaitable[None]:
        assert asyncio.get_running_loop() is self._host
        self.sent.append(event)
        if event["type"] == "http.response.trailers":
            self.ended.set()
        done = self._host.create_future()
        done.set_result(None)
        return done

    async def is_asked(self) -> None:
        """Until the application asks for more."""
        async with asyncio.timeout(10):
            while not self.asked:  # noqa: ASYNC110 - nobody tells
                await asyncio.sleep(0.001)

    async def answer(self) -> tuple[Code, bytes]:
        async with asyncio.timeout(10):
            await self.ended.wait()
        kinds = [event["type"].removeprefix("http.response.") for event in self.sent]
        assert kinds == ["start", "body", "trailers"]
        trailers = dict(self.sent[-1]["headers"])
        return Code(int(trailers[b"grpc-status"])), trailers.get(b"grpc-message", self.sent[1]["body"])


class Scene:
    """A core with one worker, and what was told of finished calls."""

    def __init__(self, arguments: dict[str, str]) -> None:
        self.bench = Bench()
        self.bench.route(7)
        self.told: list[tuple[str, str, Code]] = []
        handlers = ServingHandlers(self.bench.core, _reload, lambda *told: self.told.append(told[:3]))
        self.intake = Intake(PLACES)
        self.app = DirectGrpc(GrpcApp(handlers.methods, LIMIT, arguments, self.intake), handlers.methods.forwards)
        self.pyvoy = Pyvoy(self.app, asyncio.get_running_loop())

    async def sent_to_worker(self, count: int = 1) -> list[bytes]:
        link = self.bench.links[7]
        async with asyncio.timeout(10):
            while len(link.payloads) < count:  # noqa: ASYNC110 - the fake tells nobody
                await asyncio.sleep(0.001)
        return link.payloads

    async def finished(self, count: int = 1) -> list[tuple[str, str, Code]]:
        async with asyncio.timeout(10):
            while len(self.told) < count:  # noqa: ASYNC110 - likewise
                await asyncio.sleep(0.001)
        return self.told


async def _reload(_: bytes) -> Status:
    return Status()


def run(scenario: Callable[[Scene], Awaitable[Any]], arguments: dict[str, str] | None = None) -> Any:
    async def main() -> Any:
        return await scenario(Scene(arguments or {}))

    return asyncio.run(main())


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


# -- calls of which nothing comes but their headers ------------------------------------------------------------------


@pytest.fixture
def short_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grpc_direct, "MOMENT_S", 0.01)
    monkeypatch.setattr(grpc_direct, "_SOON_S", 0.001)


@pytest.mark.usefixtures("short_moment")
def test_the_deadline_holds_for_a_call_of_which_nothing_comes() -> None:
    async def scenario(scene: Scene) -> Any:
        client = Client(scene.pyvoy, headers=((b"grpc-timeout", b"50m"),)).start()
        answer = await client.answer()
        client.give(plain(REQUEST))  # too late
        other = Client(scene.pyvoy).start().give(plain(REQUEST))
        assert await scene.sent_to_worker() == [REQUEST]
        scene.bench.reply(7, 1, b"y")
        return answer, (await other.answer())[0], scene.told, len(client.sent), scene.intake.requests

    answer, other, told, sent, left = run(scenario)
    assert answer == (Code.DEADLINE_EXCEEDED, b"Deadline exceeded before the whole message had come")
    assert other is Code.OK
    assert told == [("Predict", "", Code.DEADLINE_EXCEEDED), ("Predict", "m", Code.OK)]
    assert (sent, left) == (3, 0)


@pytest.mark.usefixtures("short_moment")
def test_calls_of_which_nothing_comes_need_places() -> None:
    """One that has no place is refused; with one it goes on when its message comes, whole or in parts."""

    async def scenario(scene: Scene) -> Any:
        clients = [Client(scene.pyvoy).start() for _ in range(PLACES)]
        async with asyncio.timeout(10):
            while scene.intake.requests < PLACES:  # noqa: ASYNC110 - nobody tells
                await asyncio.sleep(0.001)
        refused = await Client(scene.pyvoy).start().answer()
        whole, parts, gone = clients
        whole.give(plain(REQUEST))
        parts.give(plain(REQUEST)[:3], more_body=True)
        await parts.is_asked()
        parts.give(plain(REQUEST)[3:])
        gone.go()
        await scene.sent_to_worker(2)
        for request_id in scene.bench.links[7].ids:
            scene.bench.reply(7, request_id, b"y")
        answers = [await client.answer() for client in (whole, parts)]
        return refused, answers, sorted(await scene.finished(4)), gone.sent, scene.intake.requests

    (code, text), answers, told, gone, left = run(scenario)
    assert code is Code.UNAVAILABLE
    assert text.startswith(FULL.encode())
    assert answers == [(Code.OK, plain(b"y"))] * 2
    assert told == sorted(
        [("Predict", "m", Code.OK)] * 2 + [("Predict", "", Code.UNAVAILABLE), ("Predict", "", Code.CANCELLED)]
    )
    assert (gone, left) == ([], 0)


@pytest.mark.usefixtures("short_moment")
def test_a_flood_of_calls_of_which_nothing_comes_does_not_keep_the_loop_to_itself(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(grpc_direct, "_MOST_AT_ONCE", 2)

    async def scenario(scene: Scene) -> Any:
        clients = [Client(scene.pyvoy).start() for _ in range(9)]
        grown = [0]
        async with asyncio.timeout(10):
            while len(scene.told) < len(clients) - PLACES:
                await asyncio.sleep(0)
                grown.append(scene.intake.requests + len(scene.told))
        return max(after - before for before, after in itertools.pairwise(grown))

    assert run(scenario) == 2


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


def test_what_comes_faster_than_the_loop_turns_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grpc_direct, "_MOST_WAITING", 2)

    async def scenario(scene: Scene) -> Any:
        clients = [Client(scene.pyvoy).start() for _ in range(4)]
        for client in clients:
            client.give(plain(REQUEST))  # and the loop does not turn
        refused = [await client.answer() for client in clients[2:]]
        retry_after = dict(clients[3].sent[-1]["headers"])[b"retry-after"]
        later = Client(scene.pyvoy).start().give(plain(REQUEST))
        await scene.sent_to_worker(3)
        for request_id in scene.bench.links[7].ids:
            scene.bench.reply(7, request_id, b"y")
        taken = [await client.answer() for client in (*clients[:2], later)]
        return taken, [code for code, text in refused if text.startswith(FULL.encode())], retry_after, scene.told

    taken, refused, retry_after, told = run(scenario)
    assert taken == [(Code.OK, plain(b"y"))] * 3
    assert refused == [Code.UNAVAILABLE] * 2
    assert retry_after == b"1"
    assert told == [("Predict", "", Code.UNAVAILABLE)] * 2 + [("Predict", "m", Code.OK)] * 3


def test_a_part_of_a_message_waits_for_the_loop_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grpc_direct, "_MOST_WAITING", 2)

    async def scenario(scene: Scene) -> Any:
        clients = [Client(scene.pyvoy).start() for _ in range(3)]
        for client in clients:
            client.give(plain(REQUEST)[:3], more_body=True)  # and the loop does not turn
        refused = await clients[2].answer()
        for client in clients[:2]:
            async with asyncio.timeout(10):
                while not client.asked:  # noqa: ASYNC110 - nobody tells
                    await asyncio.sleep(0.001)
            client.give(plain(REQUEST)[3:])
        await scene.sent_to_worker(2)
        for request_id in scene.bench.links[7].ids:
            scene.bench.reply(7, request_id, b"y")
        return refused[0], [await client.answer() for client in clients[:2]], scene.told

    refused, taken, told = run(scenario)
    assert refused is Code.UNAVAILABLE
    assert taken == [(Code.OK, plain(b"y"))] * 2
    assert told == [("Predict", "", Code.UNAVAILABLE)] + [("Predict", "m", Code.OK)] * 2


def test_a_turn_of_the_loop_takes_what_was_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else calls that come as fast as they are begun would keep the loop to themselves."""
    turns: list[list[bytes]] = []

    async def scenario(scene: Scene) -> Any:
        first, second = (Client(scene.pyvoy).start() for _ in range(2))
        begin = Forward.begin

        def begin_when_another_comes(forward: Forward, *args: Any) -> Pending:
            if second.asked:
                scene.app.loop.call_soon(lambda: turns.append(list(scene.bench.links[7].payloads)))
                second.give(plain(REQUEST))
            return begin(forward, *args)

        monkeypatch.setattr(Forward, "begin", begin_when_another_comes)
        first.give(plain(REQUEST))
        await scene.sent_to_worker(2)

    run(scenario)
    assert turns == [[REQUEST]]


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

    assert Pending not in run(scenario)
