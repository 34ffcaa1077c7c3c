"""What decides for the whole cluster: control loops and scheduler, in one process, each with its own credentials.

One process because each of them is idle most of the time, and a process costs more memory than all they hold.
"""

from pilotage import controllers, scheduler
from pilotage.client import Client
from pilotage.kit.tasks import task_set
from pilotage.loadbalancer import AssignerConfig, run_assigner
from pilotage.up.launch import Launch


async def serve(launch: Launch) -> None:
    """Run them until cancelled; ready when each is."""
    waiting = {"controllers", "scheduler", "loadbalancer"}

    def ready(name: str) -> None:
        waiting.discard(name)
        if not waiting:
            launch.on_ready()

    root_ca = launch.layout.credentials.joinpath("ca.crt").read_text()
    async with (
        Client.from_kubeconfig(launch.kubeconfig("controllers"), user_agent="pilotage-controllers") as manager,
        Client.from_kubeconfig(launch.kubeconfig("scheduler"), user_agent="pilotage-scheduler") as binder,
        Client.from_kubeconfig(launch.kubeconfig("loadbalancer"), user_agent="pilotage-loadbalancer") as assigner,
        task_set() as tasks,
    ):
        tasks.start(scheduler.run(scheduler.Config(), binder, on_ready=lambda: ready("scheduler")), name="scheduler")
        pools = AssignerConfig(pools=(launch.plan.load_balancer_cidr,))
        tasks.start(run_assigner(pools, assigner, on_ready=lambda: ready("loadbalancer")), name="loadbalancer")
        config = controllers.Config(root_ca=root_ca)
        await controllers.run(config, manager, on_ready=lambda: ready("controllers"))
