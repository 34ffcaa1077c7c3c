"""What decides for the whole cluster: control loops, scheduler, load balancer addresses, in one process.

One process because each of them is idle most of the time, and a process costs more memory than all they hold. Each
speaks to the API with its own credentials.
"""

from pilotage import controllers, scheduler
from pilotage.client import Client
from pilotage.kit.tasks import task_set
from pilotage.loadbalancer import AssignerConfig, run_assigner
from pilotage.up.launch import Launch


async def serve(launch: Launch) -> None:
    """Run them until cancelled; ready when each is."""
    ready = launch.ready_with("controllers", "scheduler", "loadbalancer")
    root_ca = launch.layout.credentials.joinpath("ca.crt").read_text()
    pools = AssignerConfig(pools=launch.plan.load_balancer_cidrs)
    async with (
        Client.from_kubeconfig(launch.kubeconfig("controllers"), user_agent="pilotage-controllers") as manager,
        Client.from_kubeconfig(launch.kubeconfig("scheduler"), user_agent="pilotage-scheduler") as binder,
        Client.from_kubeconfig(launch.kubeconfig("loadbalancer"), user_agent="pilotage-loadbalancer") as assigner,
        task_set() as tasks,
    ):
        tasks.start(scheduler.run(scheduler.Config(), binder, on_ready=ready["scheduler"]), name="scheduler")
        tasks.start(run_assigner(pools, assigner, on_ready=ready["loadbalancer"]), name="loadbalancer")
        await controllers.run(controllers.Config(root_ca=root_ca), manager, on_ready=ready["controllers"])
