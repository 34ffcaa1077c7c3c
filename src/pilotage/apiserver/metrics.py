"""Every metric of the API server."""

from pilotage.telemetry.metrics import gauge, histogram

REQUEST_SECONDS = histogram(
    "pilotage_apiserver_request_duration_seconds",
    "Time from a request's arrival to its answer, without watches",
    ("verb", "resource", "code"),
)
REQUESTS_IN_FLIGHT = gauge("pilotage_apiserver_requests_in_flight_count", "Requests being answered, watches included")
WATCHES = gauge("pilotage_apiserver_watches_count", "Open watches")
