"""What Envoy with pyvoy costs without anything of ours behind it: reads a call's body, answers the same each time.

Imported by pyvoy in Envoy's main thread, in the place of `modelpool.frontend.envoy_app`; `bench_floor_server` makes
that Envoy. All of a call is done in the thread in which pyvoy hands it over: no task, no event loop, no other thread.
The body is taken and let go; the answer is the message in the file `REPLY` of the working directory.
"""

from pathlib import Path

import bench_floor_asgi
from bench_floor_asgi import REPLY, Application, Call

from modelpool.frontend import grpc_frames
from modelpool.frontend.grpc_asgi import OK_START, OK_TRAILERS

_BODY = {"type": "http.response.body", "body": grpc_frames.plain(Path(REPLY).read_bytes())}


class _Call(Call):
    __slots__ = ()

    def answer(self) -> None:
        send = self.send
        send(OK_START)
        send(_BODY)
        send(OK_TRAILERS)


bench_floor_asgi.begin()
grpc = rest = Application(_Call)
