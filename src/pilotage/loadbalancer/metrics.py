"""Every metric of the load balancer."""

from pilotage.telemetry.metrics import counter, gauge

ADDRESSES = gauge("pilotage_loadbalancer_addresses_count", "Addresses this node answers for")
ANSWERS = counter("pilotage_loadbalancer_answers_total", "ARP requests answered")
FAILURES = counter("pilotage_loadbalancer_failures_total", "Frames that could not be sent")
