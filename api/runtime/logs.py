"""Structured log lines on standard error: one JSON object a line, nothing per order.

Records of the standard library and of structlog (stamina's retries) take the same
way, so that every line looks alike.
"""

import logging
import os
import sys
import time
from typing import Any

import orjson
import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

_FIRST = ("time", "level", "process", "pid", "logger", "message")


def _json(entry: dict[str, Any], **_: Any) -> str:
    ordered = {name: entry[name] for name in _FIRST if name in entry}
    return orjson.dumps(ordered | entry, default=str).decode()


def _stamp(_: WrappedLogger, __: str, entry: EventDict) -> EventDict:
    now = time.time()
    seconds = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now))
    entry["time"] = f"{seconds}.{int(now % 1 * 1000):03d}Z"
    entry["level"] = str(entry.get("level", "")).upper()
    entry["message"] = entry.pop("event")
    return entry


def configure(process: str) -> None:
    """Send every log record of this process to standard error as JSON lines."""

    def name_process(_: WrappedLogger, __: str, entry: EventDict) -> EventDict:
        entry["process"], entry["pid"] = process, os.getpid()
        return entry

    shared: list[Processor] = [
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.format_exc_info,
        name_process,
    ]
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                _stamp,
                structlog.processors.JSONRenderer(serializer=_json),
            ],
        )
    )
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
    )
