"""The worker's end of the barest chain: a process that waits in a socket, runs a model, and answers by another socket.

`bench_floor_chain_worker.py WORKLOAD DIR FOLDER`: `DIR` is the directory of a model's version; sockets and the answer's
body are in `FOLDER`. The model's input is there already, and nothing is read of a request but its number. Says "ready"
and serves until it is killed.
"""

import sys
from pathlib import Path
from typing import Any

import zmq
from bench_floor_chain_wire import ANSWERS, BODY, NUMBER, REQUESTS, endpoint
from bench_plain_loop import INPUTS
from bench_plain_server import PlainModel


def _bound(context: "zmq.Context[zmq.Socket[bytes]]", kind: int, path: str) -> Any:
    socket = context.socket(kind)
    socket.bind(path)
    return socket


def main() -> None:
    workload, version, folder = sys.argv[1:]
    run, x = PlainModel(Path(version)).run, INPUTS[workload]()
    body = (Path(folder) / BODY).read_bytes()
    run(x)
    with zmq.Context() as context:
        receive = _bound(context, zmq.PULL, endpoint(folder, REQUESTS)).recv
        # The method of pyzmq's C part, as the worker takes it.
        send = super(zmq.Socket, _bound(context, zmq.PUSH, endpoint(folder, ANSWERS))).send
        print("ready", flush=True)
        while True:
            number = receive()[: NUMBER.size]
            run(x)
            send(number + body)


if __name__ == "__main__":
    main()
