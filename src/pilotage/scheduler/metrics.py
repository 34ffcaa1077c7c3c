"""Every metric of the scheduler."""

from pilotage.telemetry import counter, gauge

attempts = counter("pilotage_scheduler_attempts_total", "Scheduling attempts by outcome.", ("result",))
pending_pods = gauge("pilotage_scheduler_pending_pods", "Pods in the scheduling queue by place.", ("place",))
victims = counter("pilotage_scheduler_preemption_victims_total", "Pods removed in favour of a pod of more priority.")
