"""Entry point: runs one command and turns every foreseen error into one line and an exit code.

Apart from `app` so that tests can call `main` with arguments. Leaves tracebacks to what nobody foresaw.
"""

import os
import sys
from collections.abc import Sequence

# Where Debian keeps nft and its like; the search path of ordinary users leaves them out.
_ADMINISTRATORS_PROGRAMS = ("/usr/local/sbin", "/usr/sbin", "/sbin")
_INTERRUPTED = 130  # as a POSIX shell reports an end by SIGINT


def main(arguments: Sequence[str] | None = None) -> None:
    """Run `pilotage` with `arguments` (default: the process's own) and exit."""
    known = os.environ.get("PATH", os.defpath).split(os.pathsep)
    os.environ["PATH"] = os.pathsep.join([*known, *(path for path in _ADMINISTRATORS_PROGRAMS if path not in known)])
    try:
        code = run(sys.argv[1:] if arguments is None else arguments)
    except KeyboardInterrupt:  # while this program was still being imported, too
        code = _complain("interrupted", _INTERRUPTED)
    sys.exit(code)


def run(arguments: Sequence[str]) -> int:
    """Run one command; returns the exit code."""
    import typer

    from pilotage.cli.app import app
    from pilotage.kit import PilotageError, UsageError

    try:
        result = app(args=list(arguments), prog_name="pilotage", standalone_mode=False)
    except typer.Exit as error:
        return int(error.exit_code)
    except typer.TyperException as error:  # a wrong command line, in typer's own words
        text = error.format_message() if hasattr(error, "format_message") else str(error)
        if type(error).__name__ == "NoArgsIsHelpError":  # a group without a command: its message is the help
            sys.stderr.write(f"{text}\n")
            return 2
        context = getattr(error, "ctx", None)
        return _complain(f"{text.rstrip('.')}; see `{context.command_path if context else 'pilotage'} --help`", 2)
    except UsageError as error:
        return _complain(str(error), 2)
    except PilotageError as error:
        return _complain(str(error), 1)
    except typer.Abort:
        return _complain("interrupted", _INTERRUPTED)
    except BrokenPipeError:  # the reader of our output left, as `head` does
        sys.stderr.close()
        return 1
    if result == _INTERRUPTED and arguments[0] != "shell":  # typer turns Ctrl-C into this, in silence
        return _complain("interrupted", _INTERRUPTED)
    return result if isinstance(result, int) else 0


def _complain(text: str, code: int) -> int:
    sys.stderr.write(f"pilotage: {' '.join(text.split())}\n")
    return code


if __name__ == "__main__":
    main()
