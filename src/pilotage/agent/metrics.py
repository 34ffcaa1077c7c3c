"""Every metric of the agent."""

from pilotage.telemetry import counter, gauge, histogram

PODS = gauge("pilotage_agent_pods_count", "Pods this node works on.")
CONTAINER_STARTS = counter("pilotage_agent_container_starts_total", "Containers started.", ["outcome"])
POD_START_SECONDS = histogram(
    "pilotage_agent_pod_start_seconds", "From the first sight of a pod to all its containers started."
)
ADDRESS_REST_SECONDS = histogram(
    "pilotage_agent_address_rest_seconds",
    "How long a pod's address had been free when it was given again; below DNS's longest TTL the range is too small.",
    buckets=(1, 2, 5, 10, 30, 60, 300, 1800, 3600),
)
STATUS_WRITES = counter("pilotage_agent_status_writes_total", "Pod statuses written to the API.")
