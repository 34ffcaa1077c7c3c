"""Jobs and DaemonSets, with the test in the place of the agents."""

from typing import Any

from pilotage.api.apps_v1 import DaemonSet
from pilotage.api.batch_v1 import Job
from pilotage.api.core_v1 import Event, Node, Pod


def status(world: Any) -> Any:
    found = world.informers[Job].get("sum", "default")
    return found.status if found else None


def ended(world: Any) -> str:
    found = [item.type for item in status(world).conditions if item.type in ("Complete", "Failed")]
    return found[0] if found else ""


async def finish(world: Any, phase: str, count: int = 1) -> None:
    pods = await world.until(
        lambda: (
            len(found := [p for p in world.pods() if p.status.phase not in ("Succeeded", "Failed")]) >= count
            and found[:count]
        )
    )
    for pod in pods:
        await world.set_pod(pod, phase=phase, ready=False)


async def test_completions_are_counted_and_parallelism_kept(world: Any, workload: Any) -> None:
    await world.follow(Pod, Job)
    await world.create(workload("Job", "sum", completions=3, parallelism=2, pod={"restartPolicy": "Never"}))
    await world.until(lambda: len(world.pods()) == 2)
    await finish(world, "Succeeded", 2)
    await world.until(lambda: status(world).succeeded == 2 and status(world).active == 1)
    await finish(world, "Succeeded")
    await world.until(lambda: ended(world) == "Complete")
    assert (status(world).succeeded, status(world).failed, status(world).active) == (3, 0, 0)
    assert status(world).completion_time
    await world.until(lambda: not any(pod.metadata.finalizers for pod in world.informers[Pod].list()))


async def test_too_many_failures_end_the_job(world: Any, workload: Any) -> None:
    await world.follow(Pod, Job)
    await world.create(workload("Job", "sum", backoffLimit=0, pod={"restartPolicy": "Never"}))
    await finish(world, "Failed")
    await world.until(lambda: ended(world) == "Failed")
    assert status(world).failed == 1
    assert status(world).conditions[-1].reason == "BackoffLimitExceeded"


async def test_a_deleted_pod_is_counted_and_replaced(world: Any, workload: Any) -> None:
    await world.follow(Pod, Job)
    await world.create(workload("Job", "sum", pod={"restartPolicy": "Never"}))
    first = (await world.until(lambda: world.pods()))[0]
    await world.client.delete(Pod, first.metadata.name, namespace="default")
    await world.until(
        lambda: (found := world.pods()) and found[0].metadata.uid != first.metadata.uid and status(world).failed == 1
    )


async def test_each_index_runs_once(world: Any, workload: Any) -> None:
    await world.follow(Pod, Job)
    await world.create(
        workload("Job", "sum", completions=3, parallelism=3, completionMode="Indexed", pod={"restartPolicy": "Never"})
    )
    await world.until(lambda: len(world.pods()) == 3)
    key = "batch.kubernetes.io/job-completion-index"
    assert sorted(pod.metadata.annotations[key] for pod in world.pods()) == ["0", "1", "2"]
    await finish(world, "Succeeded", 3)
    await world.until(lambda: ended(world) == "Complete")
    assert status(world).completed_indexes == "0-2"


async def test_a_finished_job_goes_after_its_time_to_live(world: Any, workload: Any) -> None:
    await world.follow(Pod, Job)
    await world.create(workload("Job", "sum", ttlSecondsAfterFinished=0, pod={"restartPolicy": "Never"}))
    await finish(world, "Succeeded")
    await world.until(lambda: not world.informers[Job].list() and not world.informers[Pod].list())


async def test_every_node_gets_its_daemon_and_updates_go_one_by_one(world: Any, workload: Any) -> None:
    await world.follow(Pod, DaemonSet, Node)
    for name in ("n1", "n2"):
        await world.make_node(name)
    await world.create(workload("DaemonSet", "log"))

    def here() -> set[str]:
        found = set()
        for pod in world.pods(app="log"):
            terms = pod.spec.affinity.node_affinity.required_during_scheduling_ignored_during_execution
            found.add(terms.node_selector_terms[0].match_fields[0].values[0])
        return found

    await world.until(lambda: here() == {"n1", "n2"})
    await world.make_node("n3")
    await world.until(lambda: here() == {"n1", "n2", "n3"})
    for pod in world.pods(app="log"):
        await world.set_pod(pod)
    await world.until(lambda: world.informers[DaemonSet].get("log", "default").status.number_available == 3)
    body = {"spec": {"template": {"spec": {"containers": [{"name": "main", "image": "localhost/app:v2"}]}}}}
    await world.client.patch(DaemonSet, "log", body, namespace="default")
    await world.until(lambda: "v2" in "".join(pod.spec.containers[0].image for pod in world.pods(app="log")))
    assert sum(1 for pod in world.pods(app="log") if pod.status.is_ready) == 2  # maxUnavailable is 1


async def test_a_refused_pod_is_told_about_its_owner(world: Any, workload: Any) -> None:
    await world.follow(Event)
    await world.make_node("n1")
    for kind, name, restart in (("DaemonSet", "log", "Always"), ("Job", "sum", "Never")):
        await world.create(workload(kind, name, pod={"serviceAccountName": "nobody", "restartPolicy": restart}))

    def told() -> set[str]:
        events = [item for item in world.informers[Event].list() if item.reason == "FailedCreate"]
        return {event.involved_object.kind for event in events if "nobody" in event.message}

    await world.until(lambda: told() == {"DaemonSet", "Job"})


async def test_a_daemon_that_fails_is_replaced_and_said_to_have_failed(world: Any, workload: Any) -> None:
    await world.follow(Pod, DaemonSet, Event)
    await world.make_node("n1")
    await world.create(workload("DaemonSet", "log"))
    (first,) = await world.until(lambda: world.pods(app="log"))
    await world.set_pod(first, phase="Failed", ready=False)
    await world.until(lambda: [pod for pod in world.pods(app="log") if pod.metadata.uid != first.metadata.uid])
    await world.until(lambda: [e for e in world.informers[Event].list() if e.reason == "FailedDaemonPod"])


async def test_an_exit_code_that_no_retry_helps_fails_the_job(world: Any, workload: Any) -> None:
    await world.follow(Pod, Job)
    rules = [
        {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
        {"action": "FailJob", "onExitCodes": {"operator": "In", "values": [42]}},
    ]
    await world.create(
        workload(
            "Job",
            "sum",
            parallelism=2,
            completions=2,
            podFailurePolicy={"rules": rules},
            pod={"restartPolicy": "Never"},
        )
    )
    pods = await world.until(lambda: len(found := world.pods()) == 2 and found)
    # The code comes with the phase, as an agent writes it.
    body = {
        "phase": "Failed",
        "containerStatuses": [
            {
                "name": "main",
                "image": "",
                "imageID": "",
                "ready": False,
                "restartCount": 0,
                "state": {"terminated": {"exitCode": 42}},
            }
        ],
    }
    name = pods[0].metadata.name
    await world.client.patch(Pod, name, {"status": body}, namespace="default", subresource="status")
    await world.until(lambda: ended(world) == "Failed")
    types = {item.type: item for item in status(world).conditions}
    assert types["Failed"].reason == types["FailureTarget"].reason == "PodFailurePolicy"
    assert types["Failed"].message == (
        f"Container main for pod default/{name} failed with exit code 42 matching FailJob rule at index 1"
    )
    assert status(world).failed == 2  # the other one was ended, which counts
    await world.until(lambda: not any(pod.metadata.finalizers for pod in world.informers[Pod].list()))


async def test_an_index_fails_alone_and_the_job_at_the_end(world: Any, workload: Any) -> None:
    await world.follow(Pod, Job)
    wish = {"completions": 2, "parallelism": 2, "completionMode": "Indexed", "backoffLimitPerIndex": 0}
    await world.create(workload("Job", "sum", pod={"restartPolicy": "Never"}, **wish))
    pods = await world.until(lambda: len(found := world.pods()) == 2 and found)
    await world.set_pod(pods[0], phase="Failed", ready=False)
    await world.until(lambda: status(world).failed_indexes == "0" and status(world).failed == 1)
    assert not ended(world)
    await world.set_pod(pods[1], phase="Succeeded", ready=False)
    await world.until(lambda: ended(world) == "Failed")
    assert (status(world).conditions[-1].reason, status(world).completed_indexes) == ("FailedIndexes", "1")


async def test_enough_success_ends_the_rest(world: Any, workload: Any) -> None:
    await world.follow(Pod, Job)
    wish = {"completions": 3, "parallelism": 3, "completionMode": "Indexed"}
    rules = {"rules": [{"succeededIndexes": "0"}]}
    await world.create(workload("Job", "sum", pod={"restartPolicy": "Never"}, successPolicy=rules, **wish))
    pods = await world.until(lambda: len(found := world.pods()) == 3 and found)
    await world.set_pod(pods[0], phase="Succeeded", ready=False)
    await world.until(lambda: ended(world) == "Complete")
    assert (status(world).succeeded, status(world).failed) == (1, 0)
    assert status(world).conditions[-1].reason == "SuccessPolicy"
    await world.until(lambda: len(world.informers[Pod].list()) == 1)


async def test_a_suspended_job_lets_go_of_its_pods_and_comes_back(world: Any, workload: Any) -> None:
    await world.follow(Pod, Job)
    await world.create(workload("Job", "sum", parallelism=2, completions=2, pod={"restartPolicy": "Never"}))
    await world.until(lambda: len(world.pods()) == 2)
    await world.client.patch(Job, "sum", {"spec": {"suspend": True}}, namespace="default")
    await world.until(lambda: not world.informers[Pod].list() and status(world).active == 0)
    assert (status(world).conditions[0].reason, status(world).start_time) == ("JobSuspended", "")
    await world.client.patch(Job, "sum", {"spec": {"suspend": False}}, namespace="default")
    await world.until(lambda: len(world.pods()) == 2 and status(world).active == 2)
    assert (status(world).conditions[0].reason, status(world).failed) == ("JobResumed", 0)
    assert status(world).start_time
