"""Every metric of the agent."""

from pilotage.telemetry import counter, gauge, histogram

PODS = gauge("pilotage_agent_pods_count", "Pods this node works on.")
CONTAINER_STARTS = counter("pilotage_agent_container_starts_total", "Containers started.", ["outcome"])
POD_START_SECONDS = histogram(
    "pilotage_agent_pod_start_seconds", "From the first sight of a pod to all its containers started."
)
STATUS_WRITES = counter("pilotage_agent_status_writes_total", "Pod statuses written to the API.")
