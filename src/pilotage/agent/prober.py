"""The shell around `core.probe`: asks containers on time and reports conclusions.

Stands apart because one running container has up to three timers of its own. Started by the pod worker when a
container runs, cancelled when it ends; conclusions become events of the pod.
"""

import asyncio
from collections.abc import Callable

from pilotage.agent.checks import Checker
from pilotage.agent.core import probe as probes
from pilotage.agent.core.probe import ProbeKind, ProbeState
from pilotage.agent.core.state import ContainerCondemned, ContainerRecord, Event, ProbeChanged
from pilotage.api.core_v1 import Container, Probe
from pilotage.kit.clock import Clock

Tell = Callable[[str, str, str], None]  # type, reason, message of an Event


async def probe_container(
    container: Container,
    record: ContainerRecord,
    *,
    pod_ip: str,
    grace_s: float,
    resumed: bool,
    checker: Checker,
    post: Callable[[Event], None],
    tell: Tell,
    clock: Clock,
) -> None:
    """Run the container's probes until cancelled: startup alone first, then liveness and readiness side by side."""

    async def run(kind: ProbeKind, probe: Probe) -> None:
        now = clock.wall().timestamp()
        if resumed:
            passed = {ProbeKind.STARTUP: record.startup_passed, ProbeKind.LIVENESS: True}.get(kind, record.ready)
            state = probes.resume(kind, probe, passed=passed, now=now)
        else:
            # The startup probe has held the others back, but their delay still counts from the container's start.
            state = probes.begin(kind, probe, record.started_at)
        while not state.on_hold:
            await asyncio.sleep(max(state.due_at - clock.wall().timestamp(), 0.0))
            success, message = await checker.probe(probe, container, record.container_id, pod_ip)
            eager = state.eager_s > 0
            before, state = state, probes.receive(state, probe, success=success, at=clock.wall().timestamp())
            if not success and not eager:
                tell("Warning", "Unhealthy", f"{kind} probe failed: {message}")
            _conclude(kind, before, state)

    def _conclude(kind: ProbeKind, before: ProbeState, state: ProbeState) -> None:
        if probes.has_failed_for_good(state):
            probe = container.startup_probe if kind is ProbeKind.STARTUP else container.liveness_probe
            own_s = probe.termination_grace_period_seconds if probe is not None else None
            post(
                ContainerCondemned(
                    name=container.name,
                    message=f"Container {container.name} failed {kind.lower()} probe, will be restarted",
                    grace_s=grace_s if own_s is None else float(own_s),
                )
            )
        elif state.passed != before.passed:
            if kind is ProbeKind.STARTUP:
                ready = container.readiness_probe is None
                post(ProbeChanged(name=container.name, startup_passed=state.passed, ready=ready or None))
            elif kind is ProbeKind.READINESS:
                post(ProbeChanged(name=container.name, ready=state.passed))

    if container.startup_probe is not None and not record.startup_passed:
        await run(ProbeKind.STARTUP, container.startup_probe)
    async with asyncio.TaskGroup() as group:
        if container.liveness_probe is not None:
            group.create_task(run(ProbeKind.LIVENESS, container.liveness_probe))
        if container.readiness_probe is not None:
            group.create_task(run(ProbeKind.READINESS, container.readiness_probe))
