"""The error of a port or socket that cannot be had. Raised by both servers, told to the supervisor by the session."""

from modelpool.supervisor.wire.status import FailedPrecondition


class BindFailed(FailedPrecondition):
    """The text names the flag, the port or path, and the reason."""
