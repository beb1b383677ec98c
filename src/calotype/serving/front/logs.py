"""The log: JSON, a line an event, with the ids of request and job; captions only if asked for."""

from __future__ import annotations

import logging
from typing import Any, TextIO

import structlog

_SHARED: tuple[Any, ...] = (
    structlog.contextvars.merge_contextvars,
    structlog.processors.add_log_level,
    structlog.processors.TimeStamper(fmt="iso", utc=True),
)


def make_log(stream: TextIO | None) -> Any:
    """A logger of lines of JSON; None = to nowhere."""
    factory = structlog.ReturnLogger() if stream is None else structlog.PrintLogger(stream)
    return structlog.wrap_logger(
        factory,
        processors=[*_SHARED, structlog.processors.format_exc_info, _as_json],
        wrapper_class=structlog.BoundLogger,
    )


def log_libraries(stream: TextIO) -> None:
    """Let what uvicorn and others log be lines of JSON, too."""
    handler = logging.StreamHandler(stream)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*_SHARED, structlog.stdlib.add_logger_name],
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.format_exc_info,
                _as_json,
            ],
        )
    )
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)


_as_json = structlog.processors.JSONRenderer(ensure_ascii=True)  # no control of a terminal passes
