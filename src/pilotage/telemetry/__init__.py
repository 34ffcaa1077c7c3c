"""How Pilotage reports on itself: structured logs, metrics, health.

Purpose: one way to log, one way to count, one place that answers /metrics, /livez and /readyz for a component.
Inputs → outputs: events and numbers of the running process → log lines on standard error, Prometheus text, HTTP.
Invariants: secrets never pass here; constant messages with data in fields; importing it starts nothing.
Reading order: `logs`, `metrics`, `health`.
Specifications: Prometheus text exposition format 0.0.4.
"""

from pilotage.telemetry.logs import configure_logging, get_logger
from pilotage.telemetry.metrics import counter, gauge, histogram

__all__ = ["configure_logging", "counter", "gauge", "get_logger", "histogram"]
