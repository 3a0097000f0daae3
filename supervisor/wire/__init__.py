"""What supervisor, worker and frontend share: ids, states, status codes, messages, codec, sockets, protos.

Imports the standard library, msgpack, pyzmq and protobuf only.
"""
