"""How Gunicorn runs the application. The three settings of .env.production that concern it are read here."""

import os
import shutil
from pathlib import Path

from prometheus_client import multiprocess

wsgi_app = "app.main:app"
worker_class = "uvicorn_worker.UvicornWorker"
bind = "0.0.0.0:8000"
workers = int(os.environ.get("WORKERS", "4"))
timeout = int(os.environ.get("WORKER_TIMEOUT", "120"))
keepalive = int(os.environ.get("KEEPALIVE", "5"))
# A stopped container finishes what it began; the compose file gives it a little longer than this.
graceful_timeout = 30
# The heartbeat file on a real disk can block a worker; /dev/shm is memory.
worker_tmp_dir = "/dev/shm"
# Who asked stands in X-Forwarded-For, which nginx writes anew; nobody else reaches this port.
forwarded_allow_ips = "*"
# Nobody manages a container's workers from inside it.
control_socket_disable = True
accesslog = "-"
errorlog = "-"


def on_starting(server) -> None:
    """Metrics of a former start of this container are gone: its counters begin at zero, as Prometheus expects."""
    directory = Path(os.environ["PROMETHEUS_MULTIPROC_DIR"])
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)


def child_exit(server, worker) -> None:
    multiprocess.mark_process_dead(worker.pid)
