"""Stories told in shell commands: a text file with a title, commands with what they must print, and their files.

    $ kubectl get pod none          runs a command; the lines below must be among its output, in this order;
    Error from server (NotFound): … `…` stands for anything, spaces count once, no line at all expects no output
    [1]                             and this is its exit code, when it is not 0
    ~ kubectl get pods              runs it again until its output is as told
    & kubectl get pods --watch      starts it; goes on once the lines below were printed
    %                               the lines below were printed by what was started, which then is stopped

Commands are no shell's: only quotes, leading `NAME=value` and a trailing `< file` mean what they mean there. A word
in angle brackets (`<namespace>`, `<node>`, `<home>`) stands for what the teller was given. Files follow the story, each
under a line `-- name --`.
"""

import os
import re
import shlex
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

import yaml

from .cluster import TIMEOUT_S, Cluster


@dataclass(frozen=True, kw_only=True)
class Step:
    """One command of a story. `expected` is in order; `line` is where it stands in the file."""

    sigil: str
    command: str
    expected: tuple[str, ...]
    code: int
    line: int


@dataclass(frozen=True, kw_only=True)
class Story:
    title: str
    steps: tuple[Step, ...]
    files: dict[str, str]


def parse(text: str) -> Story:
    prose, *sections = re.split(r"^-- (\S+) --\n", text, flags=re.MULTILINE)
    steps: list[Step] = []
    for number, line in enumerate(prose.splitlines(), start=1):
        if line.startswith("#") or not line.strip():
            continue
        if line[0] in "$~&%":
            steps.append(Step(sigil=line[0], command=line[1:].strip(), expected=(), code=0, line=number))
            continue
        last = steps[-1]
        code = re.fullmatch(r"\[(\d+)\]", line)
        expected = last.expected if code else (*last.expected, " ".join(line.split()))
        steps[-1] = Step(
            sigil=last.sigil,
            command=last.command,
            expected=expected,
            code=int(code[1]) if code else last.code,
            line=last.line,
        )
    title = text.splitlines()[0].removeprefix("# ")
    return Story(title=title, steps=tuple(steps), files=dict(zip(sections[::2], sections[1::2], strict=True)))


def missing(expected: tuple[str, ...], output: str) -> str:
    """The first expected line that the output lacks, "" if it lacks none."""
    lines = iter([" ".join(line.split()) for line in output.splitlines()])
    for wanted in expected:
        pattern = ".*".join(re.escape(part) for part in wanted.split("…"))
        if not any(re.fullmatch(pattern, line) for line in lines):
            return wanted
    return ""


@dataclass(frozen=True, kw_only=True)
class Teller:
    """Runs the steps of one story in a namespace and a directory of its own, with one of the two kubectls."""

    cluster: Cluster
    kubectl: str
    directory: Path
    words: dict[str, str]  # what `<word>` in a story stands for

    def tell(self, story: Story) -> None:
        self.directory.mkdir()
        for name, content in story.files.items():
            (self.directory / name).parent.mkdir(parents=True, exist_ok=True)
            (self.directory / name).write_text(self._spelled(content))
        config = yaml.safe_load(self.cluster.kubeconfig.read_text())
        for context in config["contexts"]:
            context["context"]["namespace"] = self.words["namespace"]
        (self.directory / "kubeconfig").write_text(yaml.safe_dump(config))
        self.cluster.make_namespace(self.words["namespace"])
        started: subprocess.Popen[bytes] | None = None
        log = self.directory / "background.log"
        try:
            for step in story.steps:
                match step.sigil:
                    case "$":
                        self._once(step)
                    case "~":
                        self._again(step)
                    case "&":
                        started = self._start(step, log)
                        self._printed(step, log)
                    case "%":
                        assert started is not None
                        self._printed(step, log)
                        stop(started)
        finally:
            if started is not None:
                stop(started)

    def _spelled(self, text: str) -> str:
        for word, meaning in self.words.items():
            text = text.replace(f"<{word}>", meaning)
        return text

    def _run(self, step: Step) -> tuple[int, str]:
        arguments, environment, given = self._parts(step.command)
        done = subprocess.run(
            arguments,
            env=environment,
            cwd=self.directory,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            input=given,
            timeout=TIMEOUT_S,
            check=False,
        )
        return done.returncode, done.stdout.decode()

    def _parts(self, command: str) -> tuple[list[str], dict[str, str], bytes]:
        words = shlex.split(self._spelled(command))
        environment = {
            "HOME": str(self.directory),
            "PATH": os.environ["PATH"],
            "TMPDIR": str(self.directory),  # where a refused edit leaves its copy
            "KUBECONFIG": str(self.directory / "kubeconfig"),
            "KUBECACHEDIR": str(self.directory.parent / "cache"),
        }
        while "=" in words[0]:
            name, _, value = words.pop(0).partition("=")
            environment[name] = value
        given = b""
        if words[-2:-1] == ["<"]:
            given = (self.directory / words.pop()).read_bytes()
            words.pop()
        if words[0] == "kubectl":
            words[0] = self.kubectl
        return words, environment, given

    def _once(self, step: Step) -> None:
        code, output = self._run(step)
        problem = self._problem(step, code, output)
        assert not problem, f"line {step.line}: {step.command}\n{problem}; it printed\n{output}"

    def _again(self, step: Step) -> None:
        deadline = time.monotonic() + TIMEOUT_S
        while problem := self._problem(step, *(last := self._run(step))):
            assert time.monotonic() < deadline, f"line {step.line}: {step.command}\n{problem}; it printed\n{last[1]}"
            time.sleep(0.2)

    def _problem(self, step: Step, code: int, output: str) -> str:
        if code != step.code:
            return f"exit code {code}, not {step.code}"
        if not step.expected and output:
            return "nothing should have been printed"
        wanted = missing(tuple(self._spelled(line) for line in step.expected), output)
        return f"not printed: {wanted}" if wanted else ""

    def _start(self, step: Step, log: Path) -> subprocess.Popen[bytes]:
        arguments, environment, _ = self._parts(step.command)
        with log.open("wb") as output:
            return subprocess.Popen(
                arguments,
                env=environment,
                cwd=self.directory,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )

    def _printed(self, step: Step, log: Path) -> None:
        expected = tuple(self._spelled(line) for line in step.expected)
        deadline = time.monotonic() + TIMEOUT_S
        while wanted := missing(expected, log.read_text()):
            assert time.monotonic() < deadline, f"line {step.line}: not printed: {wanted}; but\n{log.read_text()}"
            time.sleep(0.05)


def stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    process.wait(10)
