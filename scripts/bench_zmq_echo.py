"""The worker's end of a data socket, with nothing behind it: answers each request with its payload.

`bench_zmq_echo.py ENDPOINT`; says "ready" and serves until it is killed.
"""

import sys

import zmq

from modelpool.supervisor.wire import data, sockets
from modelpool.supervisor.wire.status import Code


def serve(socket: "zmq.Socket[bytes]") -> None:
    """As a worker does: all that has come, then the answers."""
    while True:
        socket.poll()
        answers: list[tuple[bytes, bytes]] = []
        try:
            while True:
                peer, head, payload = socket.recv_multipart(zmq.NOBLOCK)
                header = data.request_fields(head)
                several = data.unpack_requests(payload) if header[3] is data.Method.SEVERAL else [(header, payload)]
                answers += [(data.pack_reply(each[0], Code.OK), payload) for each, payload in several]
        except zmq.Again:
            socket.send_multipart((peer, *(data.several_replies(answers) if len(answers) > 1 else answers[0])))


def main() -> None:
    with zmq.Context() as context, context.socket(zmq.ROUTER) as socket:
        sockets.configure_router(socket, sockets.DATA_HWM)
        socket.bind(sys.argv[1])
        print("ready", flush=True)
        serve(socket)


if __name__ == "__main__":
    main()
