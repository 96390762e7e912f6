"""Logs as one JSON object a line on standard output and, where LOG_SHIPPING says `host:port`, as GELF datagrams to Logstash.

A log that cannot be delivered must never make a request wait: a thread of its own sends the datagrams, and what is too much is dropped.
"""

import json
import logging
import logging.handlers
import queue
import socket
import sys
from datetime import UTC, datetime

from app.core.hosts import FOR_MACHINES
from app.core.settings import Settings

# Datagrams above it would need GELF's chunks.
LARGEST_MESSAGE = 4096
# About what a worker writes in ten seconds under full load.
WAITING = 10_000
SYSLOG = {"CRITICAL": 2, "ERROR": 3, "WARNING": 4, "INFO": 6, "DEBUG": 7}


class Json(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)


class Gelf(logging.handlers.DatagramHandler):
    def __init__(self, host: str, port: int, settings: Settings):
        super().__init__(host, port)
        self.common = {"version": "1.1", "host": socket.gethostname(), "_version": settings.version, "_color": settings.color}

    def makePickle(self, record: logging.LogRecord) -> bytes:  # the name is logging's: what goes into the datagram
        message = {
            **self.common,
            "timestamp": record.created,
            "level": SYSLOG.get(record.levelname, 6),
            "short_message": record.getMessage()[:LARGEST_MESSAGE],
            "_logger": record.name,
        }
        return json.dumps(message).encode()

    def handleError(self, record: logging.LogRecord) -> None:
        """That no Logstash is there is for the monitoring to say, not for each line."""


class Shipping(logging.handlers.QueueHandler):
    def handleError(self, record: logging.LogRecord) -> None:
        """The queue is full: this line is on standard output only."""


class NotOfMachines(logging.Filter):
    """Health checks and scrapes, several a second, would bury what people asked for."""

    def filter(self, record: logging.LogRecord) -> bool:
        return not any(f'"GET {path} ' in record.getMessage() for path in FOR_MACHINES)


def shipping(settings: Settings, host: str, port: str) -> logging.Handler:
    waiting = queue.Queue(WAITING)
    logging.handlers.QueueListener(waiting, Gelf(host, int(port or 12201), settings)).start()
    return Shipping(waiting)


def set_up(settings: Settings) -> None:
    output = logging.StreamHandler(sys.stdout)
    output.setFormatter(Json())
    handlers: list[logging.Handler] = [output]
    if settings.log_shipping:
        host, _, port = settings.log_shipping.partition(":")
        handlers.append(shipping(settings, host, port))
    logging.basicConfig(level=settings.log_level, handlers=handlers, force=True)
    access = logging.getLogger("uvicorn.access")
    # Gunicorn's worker gave it a handler that writes text.
    access.handlers, access.propagate = [], True
    access.addFilter(NotOfMachines())
