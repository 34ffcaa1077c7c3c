"""The `pilotage` command: arguments in, one call into `up` or a component, results printed.

Purpose: the contract scripts rely on. Inputs → outputs: argv → exit code 0 (ok), 1 (failed), 2 (usage); data on
standard output (`-o json` where it is data), everything else on standard error, an error in one line that says what to
do.

Invariants: a command's module imports only typer at the top, so that `--help` is fast and `up` pays for nothing it does
not use; no command decides anything that is not about arguments or printing.

Reading order: `__main__`, `app`, then `commands`, one file a group.

Specifications: the XDG base directories for where clusters are kept; POSIX XCU 2.8.2 for exit codes of `shell`.
"""
