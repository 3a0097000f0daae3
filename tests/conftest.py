"""For all tests: TensorFlow itself is never imported by the process that runs them.

The bare `tensorflow` package of `wire.protos` is installed before any test module is collected, so that the proto
modules are found quickly and every test sees the same. A test that needs TensorFlow runs it in a process of its own.
"""

import modelpool.supervisor.wire.protos  # noqa: F401
