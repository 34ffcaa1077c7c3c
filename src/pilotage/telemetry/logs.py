"""Structured log lines on standard error.

Constant message, data in fields; a terminal gets columns, everything else one JSON object a line. A request or
reconcile id bound with `structlog.contextvars` appears in every line below it.
"""

import sys
from typing import Any, TextIO, cast

import structlog

_LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40}
LEVELS = tuple(_LEVELS)


class _StandardError:
    """Standard error as it is when a line is written: loggers are kept, and what they were made on may be closed."""

    def write(self, text: str) -> int:
        return sys.stderr.write(text)

    def flush(self) -> None:
        sys.stderr.flush()


_OUTPUT = cast(TextIO, _StandardError())


def configure_logging(level: str = "info", *, component: str = "") -> None:
    """Once per process, before the first line; `component` is put into every line."""
    pretty = sys.stderr.isatty()
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            # Rich tracebacks print local variables, and with them secrets: one plain exception text only.
            structlog.processors.format_exc_info,
            structlog.dev.ConsoleRenderer(colors=True) if pretty else structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(_LEVELS.get(level, 20)),
        logger_factory=structlog.PrintLoggerFactory(_OUTPUT),
        cache_logger_on_first_use=True,
    )
    structlog.contextvars.clear_contextvars()
    if component:
        structlog.contextvars.bind_contextvars(component=component)


def _quiet() -> None:
    """Until a process configures its logs: warnings only, and no tracebacks with local variables (secrets) in them."""
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.format_exc_info,
            structlog.processors.KeyValueRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(_LEVELS["warning"]),
        logger_factory=structlog.PrintLoggerFactory(_OUTPUT),
        cache_logger_on_first_use=False,
    )


_quiet()


def get_logger(**fields: Any) -> structlog.typing.FilteringBoundLogger:
    """A logger with these fields bound; cheap, may be called at import."""
    return cast(structlog.typing.FilteringBoundLogger, structlog.get_logger(**fields))
