"""Composition roots: one module a process, each with `async def serve(launch)`.

A root turns the cluster's plan into one component's Config, opens its client, and runs it until cancelled. Roots are
the only modules that know both the plan and a component; they are imported once, by the zygote, so importing one must
start nothing.
"""
