"""Every metric there is, by name: TF Serving's own, with its labels, units and buckets, and beside them ours.

TF Serving's names are its internal ones with `/` turned into `:` (util/prometheus_exporter.cc); times are
microseconds. Ours follow Prometheus' rules: the unit in the name, base units, `_total` for counters. Standard library
only; used in every process.
"""

from .metrics import Family, Kind

TF_SERVING = ":tensorflow:serving:"
_TF_LATENCY_US = tuple(10 * 1.8**power for power in range(33))
_SECONDS = (
    *(0.00001, 0.000025, 0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5),
    *(1.0, 2.5, 5.0, 10.0, 30.0, 60.0),
)
_SLOT = ("model", "version", "device", "replica")

# -- TF Serving's: servables/tensorflow/util.cc, saved_model_warmup_util.cc, core/request_logger.cc -----------------

REQUEST_COUNT = Family(f"{TF_SERVING}request_count", Kind.COUNTER, ("model_name", "status"))
REQUEST_LATENCY = Family(
    f"{TF_SERVING}request_latency", Kind.HISTOGRAM, ("model_name", "API", "entrypoint"), _TF_LATENCY_US
)
RUNTIME_LATENCY = Family(
    f"{TF_SERVING}runtime_latency", Kind.HISTOGRAM, ("model_name", "API", "runtime"), _TF_LATENCY_US
)
REQUEST_EXAMPLE_COUNTS = Family(
    f"{TF_SERVING}request_example_counts", Kind.HISTOGRAM, ("model",), tuple(2.0**power for power in range(15))
)
REQUEST_EXAMPLE_COUNT_TOTAL = Family(f"{TF_SERVING}request_example_count_total", Kind.COUNTER, ("model",))
MODEL_WARMUP_LATENCY = Family(
    f"{TF_SERVING}model_warmup_latency", Kind.HISTOGRAM, ("model_path", "status"), _TF_LATENCY_US
)
MODEL_WARMUP_RECORDS_READ = Family(f"{TF_SERVING}model_warmup_records_read", Kind.COUNTER, ("model_path", "status"))
# Its value is a text, of which TF Serving's page makes a 0: that it is there says that the version has the file.
MLMD_MAP = Family(f"{TF_SERVING}mlmd_map", Kind.GAUGE, ("model_name", "version"))
REQUEST_LOG_COUNT = Family(f"{TF_SERVING}request_log_count", Kind.COUNTER, ("model_name", "status_code"))

# TF Serving's batching_session (batching/batching_session.cc). It samples the sizes; here they are in buckets.
_QUEUING_US = tuple(100 * 1.2**power for power in range(52))
_SIZES = tuple(2.0**power for power in range(15))
_BATCHING = f"{TF_SERVING}batching_session:"
QUEUING_LATENCY = Family(f"{_BATCHING}queuing_latency", Kind.HISTOGRAM, ("thread_pool_name",), _QUEUING_US)
WRAPPED_RUN_COUNT = Family(f"{_BATCHING}wrapped_run_count", Kind.COUNTER)
PADDING_SIZE = Family(f"{_BATCHING}padding_size", Kind.HISTOGRAM, ("execution_batch_size",), (0.0, *_SIZES))
INPUT_BATCH_SIZE = Family(f"{_BATCHING}input_batch_size", Kind.HISTOGRAM, (), _SIZES)
PROCESSED_BATCH_SIZE = Family(f"{_BATCHING}processed_batch_size", Kind.HISTOGRAM, (), _SIZES)

# -- ours: of requests --------------------------------------------------------------------------------------------

# All requests of clients, those that no model was found for included.
REQUESTS = Family("modelpool_requests_total", Kind.COUNTER, ("model", "entrypoint", "api", "code"))
PAYLOAD_IN_FLIGHT = Family("modelpool_frontend_payload_in_flight_bytes", Kind.GAUGE)
REQUESTS_HELD = Family("modelpool_frontend_requests_held", Kind.GAUGE)
# What became of the requests of workers that died; fate: queued, answer_lost and suspect were sent again, poison and
# refused were not.
SETTLED_REQUESTS = Family("modelpool_requests_of_dead_workers_total", Kind.COUNTER, ("model", "fate"))
QUARANTINE_REFUSALS = Family("modelpool_quarantine_refusals_total", Kind.COUNTER, ("model",))
# What a worker has done: of the versions apart, which a client's request need not name.
WORKER_REQUESTS = Family("modelpool_worker_requests_total", Kind.COUNTER, ("model", "version", "method", "code"))
# stage: queue (from the frontend's send to the begin of its execution), deserialize, batch (waiting for others to share
# a run with), execute (the model), serialize. worker: device and replica, "gpu:0#1", whatever process is there.
STAGE_SECONDS = Family(
    "modelpool_request_stage_seconds",
    Kind.HISTOGRAM,
    ("model", "version", "signature", "worker", "method", "stage"),
    _SECONDS,
)

# Rows and requests of each run of a batch; rows that were run only to fill one up.
BATCH_ROWS = Family("modelpool_batch_rows", Kind.HISTOGRAM, ("model", "version"), _SIZES)
BATCH_REQUESTS = Family("modelpool_batch_requests", Kind.HISTOGRAM, ("model", "version"), _SIZES)
BATCH_PADDING_ROWS = Family("modelpool_batch_padding_rows_total", Kind.COUNTER, ("model", "version"))
BATCH_FAILURES = Family("modelpool_batch_failures_total", Kind.COUNTER, ("model", "version"))
# What `batching = "auto"` has learned: the rows that one run takes at the most, and what such runs reach.
BATCH_LEARNED_ROWS = Family("modelpool_batch_learned_rows", Kind.GAUGE, ("model", "version", "signature"))
BATCH_LEARNED_RATE = Family("modelpool_batch_learned_rows_per_second", Kind.GAUGE, ("model", "version", "signature"))
# How many runs of a model were found to pay at the same time, where that is left to its worker.
LEARNED_EXECUTORS = Family("modelpool_learned_executors", Kind.GAUGE, ("model", "version"))

# -- ours: of the pool, by the supervisor -------------------------------------------------------------------------

WORKER_UP = Family("modelpool_worker_up", Kind.GAUGE, _SLOT)
WORKER_STATE = Family("modelpool_worker_state", Kind.GAUGE, (*_SLOT, "state"))
WORKER_INCARNATION = Family("modelpool_worker_incarnation", Kind.GAUGE, _SLOT)
WORKER_IN_FLIGHT = Family("modelpool_worker_requests_in_flight", Kind.GAUGE, _SLOT)
WORKER_QUEUE = Family("modelpool_worker_queue_depth", Kind.GAUGE, _SLOT)
WORKER_LOAD_SECONDS = Family("modelpool_worker_load_seconds", Kind.GAUGE, _SLOT)
WORKER_WARMUP_SECONDS = Family("modelpool_worker_warmup_seconds", Kind.GAUGE, _SLOT)
WORKER_MEMORY = Family("modelpool_worker_resident_memory_bytes", Kind.GAUGE, _SLOT)
WORKER_RESTARTS = Family("modelpool_worker_restarts_total", Kind.COUNTER, ("model", "version", "cause"))
DEVICE_UP = Family("modelpool_device_up", Kind.GAUGE, ("device", "uuid"))
DEVICE_WORKERS = Family("modelpool_device_workers", Kind.GAUGE, ("device",))
DEVICE_MEMORY = Family("modelpool_device_memory_bytes", Kind.GAUGE, ("device",))
DEVICE_MEMORY_USED = Family("modelpool_device_memory_used_bytes", Kind.GAUGE, ("device",))
DEVICE_MEMORY_CLAIMED = Family("modelpool_device_memory_claimed_bytes", Kind.GAUGE, ("device",))
DEVICE_UTILIZATION = Family("modelpool_device_utilization_ratio", Kind.GAUGE, ("device",))
DEVICE_ECC_ERRORS = Family("modelpool_device_ecc_errors", Kind.GAUGE, ("device",))
FRONTEND_UP = Family("modelpool_frontend_up", Kind.GAUGE, ("frontend",))
FRONTEND_MEMORY = Family("modelpool_frontend_resident_memory_bytes", Kind.GAUGE, ("frontend",))
FRONTEND_ROUTES_EPOCH = Family("modelpool_frontend_routes_epoch", Kind.GAUGE, ("frontend",))
FRONTEND_RESTARTS = Family("modelpool_frontend_restarts_total", Kind.COUNTER)
SUPERVISOR_MEMORY = Family("modelpool_supervisor_resident_memory_bytes", Kind.GAUGE)
FORK_SERVER_MEMORY = Family("modelpool_fork_server_resident_memory_bytes", Kind.GAUGE)
# Of frontends and workers together: what is in use, what those that are there can take, what any can.
SHARED_MEMORY_USED = Family("modelpool_shared_memory_used_bytes", Kind.GAUGE)
SHARED_MEMORY_RESERVED = Family("modelpool_shared_memory_reserved_bytes", Kind.GAUGE)
SHARED_MEMORY_LIMIT = Family("modelpool_shared_memory_limit_bytes", Kind.GAUGE)
ROUTES_EPOCH = Family("modelpool_routes_epoch", Kind.GAUGE)
BUILD_INFO = Family("modelpool_build_info", Kind.GAUGE, ("version", "python"))

FAMILIES: dict[str, Family] = {family.name: family for family in list(globals().values()) if isinstance(family, Family)}
