"""kubectl's streams against a real cluster: exec, attach, cp, port-forward, logs, run, proxy, by two versions of it.

The pods stand in a namespace of their own and are shared: nothing here changes them.
"""

import contextlib
import hashlib
import json
import re
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from .cluster import Cluster
from .terminal import Terminal
from .test_kubectl import PROGRAMS

pytestmark = pytest.mark.timeout(240)

NAMESPACE = "streams"
TIMEOUT_S = 60.0
PODS = (Path(__file__).parent / "streams.yaml").read_text()
# How the streams travel: a WebSocket, which kubectl prefers, or SPDY, as its older versions do.
CARRIERS = {"websocket": "true", "spdy": "false"}


class Kubectl:
    """One version of kubectl, with one way to travel."""

    def __init__(self, cluster: Cluster, program: str, carrier: str = "true") -> None:
        self.command = (program, "--kubeconfig", str(cluster.kubeconfig), "--namespace", NAMESPACE)
        self.environment = cluster.environment | {
            "KUBECTL_REMOTE_COMMAND_WEBSOCKETS": carrier,
            "KUBECTL_PORT_FORWARD_WEBSOCKETS": carrier,
        }

    def __call__(self, *arguments: str, given: bytes = b"", code: int = 0) -> str:
        return self.raw(*arguments, given=given, code=code).decode()

    def raw(self, *arguments: str, given: bytes = b"", code: int = 0) -> bytes:
        """What it prints; where it fails as expected, its complaint."""
        done = subprocess.run(
            [*self.command, *arguments],
            env=self.environment,
            input=given,
            capture_output=True,
            timeout=TIMEOUT_S,
            check=False,
        )
        assert done.returncode == code, (arguments, done.stdout[-500:], done.stderr)
        return done.stdout if code == 0 else done.stdout + done.stderr

    def terminal(self, *arguments: str) -> Terminal:
        return Terminal(*self.command, *arguments, environment=self.environment)

    @contextlib.contextmanager
    def running(self, *arguments: str, address: str) -> Iterator[tuple[str, Callable[[], str]]]:
        """While it runs: what `address` matched in its output, and all it has printed."""
        lines: list[str] = []
        with subprocess.Popen(
            [*self.command, *arguments],
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        ) as process:
            try:
                assert process.stdout is not None
                while (found := re.search(address, lines[-1] if lines else "")) is None:
                    line = process.stdout.readline()
                    assert line, lines
                    lines.append(line)
                rest = threading.Thread(target=lambda: lines.extend(process.stdout or ()))
                rest.start()

                def printed() -> str:
                    process.terminate()
                    rest.join(TIMEOUT_S)
                    return "".join(lines)

                yield found[1], printed
                printed()
            finally:
                process.kill()


def eventually(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + TIMEOUT_S
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true in time"
        time.sleep(0.1)


@pytest.fixture(scope="session")
def pods(cluster: Cluster) -> Cluster:
    """The cluster, with the pods in it ready."""
    cluster.make_namespace(NAMESPACE)
    cluster.kubectl("apply", "--namespace", NAMESPACE, "-f", "-", given=PODS)
    cluster.kubectl("rollout", "status", "--namespace", NAMESPACE, "deployment/web", "--timeout=60s")
    cluster.kubectl("wait", "--namespace", NAMESPACE, "--for=condition=Ready", "pod", "--all", "--timeout=60s")
    # Whom the Service leads to follows the readiness of its pods.
    served = ("--for=jsonpath={.endpoints[0].conditions.ready}=true", "--selector=kubernetes.io/service-name=web")
    cluster.kubectl("wait", "--namespace", NAMESPACE, "endpointslices", *served, "--timeout=60s")
    return cluster


@pytest.fixture(params=PROGRAMS.values(), ids=PROGRAMS)
def program(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def kubectl(pods: Cluster, program: str) -> Kubectl:
    return Kubectl(pods, program)


@pytest.fixture(params=CARRIERS.values(), ids=CARRIERS)
def either_way(pods: Cluster, program: str, request: pytest.FixtureRequest) -> Kubectl:
    return Kubectl(pods, program, request.param)


def test_exec_carries_every_stream_every_byte_and_the_exit_code(either_way: Kubectl) -> None:
    kubectl = either_way
    said = kubectl("exec", "talk", "-c", "main", "--", "sh", "-c", "echo out; echo err >&2; exit 7", code=7)
    assert said == "out\nerr\ncommand terminated with exit code 7\n"
    every_byte = bytes(range(256)) * 8192
    assert kubectl.raw("exec", "-i", "talk", "-c", "main", "--", "cat", given=every_byte) == every_byte
    script = "import sys; sys.stdout.buffer.write(bytes(range(256)) * 40000)"
    large = kubectl.raw("exec", "talk", "-c", "main", "--", "python3", "-c", script)
    assert hashlib.sha256(large).digest() == hashlib.sha256(bytes(range(256)) * 40000).digest()
    assert "no-such-program" in kubectl("exec", "talk", "-c", "main", "--", "no-such-program", code=1)
    assert "container other is not valid for pod talk" in kubectl("exec", "talk", "-c", "other", "--", "true", code=1)


def test_exec_on_a_terminal_that_changes_its_size(either_way: Kubectl) -> None:
    with either_way.terminal("exec", "-it", "shell", "--", "sh") as terminal:
        terminal.until("# ")
        # The first size is sent beside the command, as later ones are.
        terminal.type('until [ "$(stty size)" = "33 90" ]; do sleep 0.05; done; tty; stty size\n')
        terminal.until("/dev/pts/")
        terminal.until("33 90")
        terminal.resize(40, 100)
        terminal.type('until [ "$(stty size)" = "40 100" ]; do sleep 0.05; done; echo res""ized; exit 5\n')
        terminal.until("resized")
        assert terminal.end() == 5


def test_attach_reaches_the_first_process_and_leaves_it_running(either_way: Kubectl) -> None:
    for _ in range(2):
        with either_way.terminal("attach", "-it", "shell") as terminal:
            terminal.type("\necho at''tached\n")
            terminal.until("attached")
    assert "Running" in either_way("get", "pod", "shell")


def test_run_with_a_terminal_ends_with_the_programs_exit_code(kubectl: Kubectl, program: str) -> None:
    name = f"tool-{hashlib.sha256(program.encode()).hexdigest()[:6]}"
    command = ("run", name, "-it", "--rm", "--restart=Never", "--image=localhost/host", "--", "sh")
    with kubectl.terminal(*command) as terminal:
        terminal.type("\n")
        terminal.until("# ")
        terminal.type("echo in''side; exit 4\n")
        terminal.until("inside")
        assert terminal.end() == 4
    assert f'pod "{name}" deleted' in terminal.printed.decode()


def test_debug_looks_into_a_running_pod(kubectl: Kubectl, program: str) -> None:
    name = f"debug-{hashlib.sha256(program.encode()).hexdigest()[:6]}"
    command = ("debug", "-it", "talk", "--image=localhost/host", "--profile=general", "--target=main", "-c", name)
    with kubectl.terminal(*command, "--", "sh") as terminal:
        terminal.type("\n")
        terminal.until("# ")
        terminal.type("cat /proc/1/cmd''line | tr '\\0' ' '; echo; exit 0\n")
        terminal.until("sleep 10000")  # the first process of the container it looks into
        assert terminal.end() == 0
    shown = json.loads(kubectl("get", "pod", "talk", "-o", "json"))
    assert name in [one["name"] for one in shown["status"]["ephemeralContainerStatuses"]]
    assert shown["status"]["phase"] == "Running"
    assert "sleep 10000" in kubectl("logs", "talk", "-c", name)
    removed = json.dumps([{"op": "remove", "path": "/spec/ephemeralContainers/0"}])
    patched = ("patch", "pod", "talk", "--subresource=ephemeralcontainers", "--type=json", "-p", removed)
    assert "may not be" in kubectl(*patched, code=1)


def test_cp_carries_files_and_folders_both_ways(either_way: Kubectl, tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    (folder / "deeper").mkdir(parents=True)
    (folder / "data").write_bytes(bytes(range(256)) * 4000)
    (folder / "deeper" / "note").write_text("hello")
    inside = f"/tmp/{tmp_path.name}"
    either_way("cp", "-c", "main", str(folder), f"talk:{inside}")
    either_way("cp", "-c", "main", f"talk:{inside}", str(tmp_path / "back"))
    assert (tmp_path / "back" / "data").read_bytes() == (folder / "data").read_bytes()
    assert (tmp_path / "back" / "deeper" / "note").read_text() == "hello"


@pytest.mark.parametrize("target", ["deployment/web", "service/web"])
def test_port_forward_carries_many_connections_at_once(either_way: Kubectl, target: str) -> None:
    port = "8080" if target.startswith("deployment") else "80"
    with either_way.running("port-forward", target, f":{port}", address=r"Forwarding from (127\.0\.0\.1:\d+)") as (
        address,
        _,
    ):

        def ask(number: int) -> str:
            with urllib.request.urlopen(f"http://{address}/{number}", timeout=TIMEOUT_S) as answer:
                return str(json.load(answer)["request"]["path"])

        with ThreadPoolExecutor(8) as pool:
            assert list(pool.map(ask, range(40))) == [f"/{number}" for number in range(40)]


def test_port_forward_names_a_port_that_nobody_listens_on(either_way: Kubectl) -> None:
    with either_way.running("port-forward", "pod/talk", ":9", address=r"Forwarding from 127\.0\.0\.1:(\d+)") as (
        port,
        printed,
    ):
        with socket.create_connection(("127.0.0.1", int(port)), timeout=TIMEOUT_S) as connection:
            assert connection.recv(1) == b""
        assert "error forwarding port 9 to pod talk" in printed()


def test_logs_are_chosen_cut_stamped_and_followed(kubectl: Kubectl) -> None:
    lines = [f"line {number}" for number in range(1, 6)]
    log = ("logs", "talk", "-c", "main")
    eventually(lambda: sorted(kubectl(*log).splitlines()) == sorted([*lines, "problem"]))  # it says so once it runs
    eventually(lambda: kubectl("logs", "talk", "-c", "again") == "second life\n")
    whole = kubectl(*log).splitlines()
    assert kubectl(*log, "--tail=2").splitlines() == whole[-2:]
    assert kubectl(*log, "--limit-bytes=9") == "\n".join(whole)[:9]
    stamped = kubectl(*log, "--timestamps").splitlines()
    assert [line.split(" ", 1)[1] for line in stamped] == whole
    times = [line.split(" ", 1)[0] for line in stamped]
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+Z", time) for time in times)
    # kubectl sends whole seconds: what is left are the lines since the last second began.
    second = times[-1].partition(".")[0]
    since = [line for time, line in zip(times, whole, strict=True) if time.startswith(second)]
    assert kubectl(*log, f"--since-time={second}Z").splitlines() == since
    assert kubectl(*log, "--since=1h").splitlines() == whole
    assert kubectl(*log, "--since-time=2100-01-01T00:00:00Z") == ""
    assert kubectl("logs", "talk", "-c", "before", "-f") == "prepared\n"  # it has ended: following ends too
    everything = kubectl("logs", "talk", "--all-containers", "--prefix").splitlines()
    assert {"[pod/talk/before] prepared", "[pod/talk/again] second life"} <= set(everything)
    assert kubectl("logs", "talk", "-c", "again") == "second life\n"
    assert kubectl("logs", "talk", "-c", "again", "--previous") == "first life\n"
    refused = kubectl(*log, "--previous", code=1)
    assert 'previous terminated container "main" in pod "talk" not found' in refused
    with kubectl.running(*log, "-f", "--tail=1", address=r"(.+)\n") as (last, _):
        assert last == whole[-1]


def test_requests_go_through_the_server_to_pods_services_and_nodes(kubectl: Kubectl) -> None:
    (pod,) = kubectl("get", "pods", "-l", "app=web", "-o", "name").split()
    base = f"/api/v1/namespaces/{NAMESPACE}"
    for path in (f"pods/{pod.removeprefix('pod/')}", "services/web:80", "services/http:web:http"):
        answer = json.loads(kubectl("get", "--raw", f"{base}/{path}/proxy/a%20b/c?x=1"))["request"]
        assert (answer["path"], answer["query"]) == ("/a%20b/c", {"x": "1"})
        assert "authorization" not in answer["headers"]
        assert answer["headers"]["x-forwarded-uri"] == f"{base}/{path}/proxy"
    assert kubectl("get", "--raw", "/api/v1/nodes/n1/proxy/healthz") == "ok"
    assert "Metrics API not available" in kubectl("top", "pods", code=1)
    refused = kubectl("get", "--raw", f"{base}/services/web:99/proxy/", code=1)
    assert 'no service port 99 found for service "web"' in refused


def test_kubectl_proxy_carries_requests_and_web_sockets(kubectl: Kubectl) -> None:
    base = f"/api/v1/namespaces/{NAMESPACE}"
    path = f"{base}/services/web:80/proxy"
    with kubectl.running("proxy", "--port=0", address=r"Starting to serve on (127\.0\.0\.1:\d+)") as (address, _):
        with urllib.request.urlopen(f"http://{address}{path}", timeout=TIMEOUT_S) as answer:  # redirected to …/
            assert answer.geturl() == f"http://{address}{path}/"
            assert json.load(answer)["request"]["path"] == "/"
        host, port = address.split(":")
        with socket.create_connection((host, int(port)), timeout=TIMEOUT_S) as connection:
            connection.sendall(
                f"GET {base}/pods/talk/proxy/ws HTTP/1.1\r\nHost: {address}\r\n"
                "Connection: Upgrade\r\nUpgrade: websocket\r\n"
                "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n".encode()
            )
            # RFC 6455 §1.3: the answer to this very key. It was made by the pod, not on the way.
            stream = connection.makefile("rb")
            head = b"".join(iter(stream.readline, b"\r\n"))
            assert b" 101 " in head.split(b"\r\n")[0] and b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" in head
            connection.sendall(b"both ways\n")
            assert stream.readline() == b"BOTH WAYS\n"


def test_to_create_is_enough_for_a_shell_and_to_get_is_not(kubectl: Kubectl) -> None:
    command = ("exec", "talk", "-c", "main", "--", "echo", "inside")
    # kubectl's WebSocket is a GET, which this user may not; its second try, SPDY, is a POST.
    assert kubectl("--as=creator", *command) == "inside\n"
    assert "forbidden" in kubectl("--as=getter", *command, code=1).lower()
    assert "forbidden" in kubectl("--as=nobody", *command, code=1).lower()


def test_the_python_client_speaks_through_web_sockets_of_its_own(pods: Cluster) -> None:
    program = Path(__file__).with_name("python_streams.py")
    done = subprocess.run(
        [sys.executable, str(program), str(pods.kubeconfig), NAMESPACE],
        capture_output=True,
        text=True,
        timeout=2 * TIMEOUT_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {"out": "got a line\n", "err": "problem\n", "code": 3, "port": "HTTP/1.1 101"}
