"""Every metric of the gateway process; Envoy's own are at its admin socket."""

from pilotage.telemetry import counter, gauge, histogram

TRANSLATION_SECONDS = histogram(
    "pilotage_gateway_translation_seconds", "Time from a look at the informers to a published snapshot."
)
SNAPSHOTS = counter("pilotage_gateway_snapshots_total", "Snapshots published to Envoy because something changed.")
APPLY_SECONDS = histogram(
    "pilotage_gateway_apply_seconds", "Time from a published snapshot to Envoy's acknowledgement of all of it."
)
REJECTED = gauge("pilotage_gateway_rejected_resources_count", "Resources of the present snapshot that Envoy refuses.")
PROBLEMS = gauge("pilotage_gateway_problems_count", "Defects found in the objects that the gateway reads.")
ENVOY_STARTS = counter("pilotage_gateway_envoy_starts_total", "Times Envoy was started; one is the good number.")
FORWARDED = gauge("pilotage_gateway_forwarded_connections_count", "Connections relayed from the host at this moment.")
FORWARD_REFUSED = counter(
    "pilotage_gateway_forward_refused_total", "Connections from the host closed at once.", ["reason"]
)
