"""Every metric of the endpointslice controller."""

from pilotage.telemetry import counter

flaps = counter("pilotage_endpointslice_flaps_total", "Times a pod stopped being ready unasked.")
held_back = counter("pilotage_endpointslice_held_back_total", "Pods that became ready and had to wait for traffic.")
deferred = counter("pilotage_endpointslice_deferred_total", "Additions put off to be written with later ones.")
