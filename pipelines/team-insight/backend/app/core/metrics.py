"""The four metrics. Gunicorn's workers share them through files in PROMETHEUS_MULTIPROC_DIR, or each scrape would see another worker's."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest, multiprocess

requests = Counter("http_requests_total", "Total HTTP requests", ["method", "endpoint", "status"])
duration = Histogram("http_request_duration_seconds", "HTTP request duration", ["method", "endpoint"])
active_users = Gauge("active_users", "Number of active users", multiprocess_mode="mostrecent")
sync_operations = Counter("sync_operations_total", "Total sync operations", ["type", "status"])
# There from the start, with zero: the first failure is then an increase that a rate can show.
for status in ("succeeded", "failed"):
    sync_operations.labels("projects", status)


def exposition() -> bytes:
    """What Prometheus reads: the sum over all workers."""
    registry = CollectorRegistry()
    multiprocess.MultiProcessCollector(registry)
    return generate_latest(registry)
