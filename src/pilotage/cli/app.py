"""The command tree. Each group of commands registers itself on `app`.

Apart from the entry point so that groups can import it. Plain help instead of rich panels: importing rich would double
the time `--help` takes.
"""

import typer

from pilotage.cli.commands import apiserver, cluster, components, demo, dns, image, look, proxy

app = typer.Typer(
    name="pilotage",
    help="Kubernetes service networking, whole: a cluster on this machine, and parts for any cluster.",
    epilog="Example: pilotage up --nodes 2 --detach && pilotage shell -- kubectl get nodes",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)

cluster.register(app)
look.register(app)
image.register(app)
demo.register(app)
apiserver.register(app)
components.register(app)
dns.register(app)
proxy.register(app)
