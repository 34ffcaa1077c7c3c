"""Every metric of the service proxy."""

from pilotage.telemetry.metrics import counter, gauge, histogram

SERVICES = gauge("pilotage_proxy_services_count", "Services this node answers for")
SYNC_SECONDS = histogram("pilotage_proxy_sync_seconds", "From taking changes up to the kernel having them", ["kind"])
ELEMENTS_CHANGED = counter("pilotage_proxy_elements_changed_total", "Set and map elements written or removed")
FAILURES = counter("pilotage_proxy_failures_total", "Transactions the kernel refused", ["kind"])
DRIFT = counter("pilotage_proxy_drift_total", "Differences between kernel and intent found and repaired", ["kind"])
FLOWS_FORGOTTEN = counter("pilotage_proxy_flows_forgotten_total", "Tracked UDP flows and sticky clients removed")
WATERMARK = gauge("pilotage_proxy_watermark_revision", "Highest resourceVersion applied in the kernel")
