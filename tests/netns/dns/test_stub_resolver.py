"""Port 53 and three resolvers that pods come with (glibc, musl, c-ares): names are resolved as a pod's program does."""

from __future__ import annotations

import asyncio
import ctypes
import json
import os
import platform
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from pilotage.dns import Config, Server
from pilotage.kit.tasks import task_set
from pilotage.testing.dns import endpoint, fill, part, service

ADDRESS = "10.89.0.11"
OUTSIDE = "10.89.0.1"
MS_BIND = 0x1000

GETADDRINFO = """
import json, socket, sys
try:
    found = socket.getaddrinfo(sys.argv[1], 80, type=socket.SOCK_STREAM, flags=socket.AI_CANONNAME)
    print(json.dumps({"canonical": found[0][3], "addresses": sorted({entry[4][0] for entry in found})}))
except socket.gaierror as error:
    print(json.dumps({"error": error.errno == socket.EAI_NONAME and "NONAME" or str(error)}))
"""

MUSL_LOADER = Path(f"/lib/ld-musl-{platform.machine()}.so.1")
# No headers and no start files: the loader is all that Debian's `musl` must bring, and tcc all that compiles.
MUSL = """
typedef unsigned int socklen_t;
struct sockaddr;
struct addrinfo {
    int flags, family, socktype, protocol; socklen_t addrlen;
    struct sockaddr *addr; char *canonname; struct addrinfo *next;
};
int getaddrinfo(const char *, const char *, const struct addrinfo *, struct addrinfo **);
int getnameinfo(const struct sockaddr *, socklen_t, char *, socklen_t, char *, socklen_t, int);
int puts(const char *);
int __libc_start_main(int (*)(int, char **), int, char **, void *, void *, void *);
int main(int argc, char **argv) {
    struct addrinfo hints = {0, 0, 1, 0, 0, 0, 0, 0}, *found, *one;
    char text[64];
    int error = getaddrinfo(argv[1], "80", &hints, &found);
    if (error) puts(error == -2 ? "NONAME" : "FAILED");
    else for (one = found; one; one = one->next)
        if (!getnameinfo(one->addr, one->addrlen, text, 64, 0, 0, 1)) puts(text);
    return 0;
}
void start_c(long *stack) { __libc_start_main(main, (int)stack[0], (char **)(stack + 1), 0, 0, 0); }
__asm__(".globl _start\\n_start:\\n xor %ebp,%ebp\\n mov %rsp,%rdi\\n and $-16,%rsp\\n call start_c\\n");
"""

C_ARES = """
import ctypes, json, socket, sys
class Node(ctypes.Structure): pass
Node._fields_ = [(n, ctypes.c_int) for n in ("ttl", "flags", "family", "socktype", "protocol", "addrlen")] + [
    ("addr", ctypes.c_void_p), ("next", ctypes.POINTER(Node))]
class Found(ctypes.Structure):
    _fields_ = [("cnames", ctypes.c_void_p), ("nodes", ctypes.POINTER(Node)), ("name", ctypes.c_char_p)]
class Hints(ctypes.Structure):
    _fields_ = [(n, ctypes.c_int) for n in ("flags", "family", "socktype", "protocol")]
answer = {}
@ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int, ctypes.c_int, ctypes.POINTER(Found))
def done(_, status, timeouts, found):
    answer["status"] = status
    node = found.contents.nodes if found else None
    while node:
        four = node.contents.family == socket.AF_INET
        start, size = (4, 4) if four else (8, 16)
        packed = ctypes.string_at(node.contents.addr + start, size)
        answer.setdefault("addresses", []).append(socket.inet_ntop(node.contents.family, packed))
        node = node.contents.next
cares, libc = ctypes.CDLL("libcares.so.2"), ctypes.CDLL(None)
channel = ctypes.c_void_p()
assert cares.ares_library_init(1) == 0 and cares.ares_init(ctypes.byref(channel)) == 0
hints = Hints(0, 0, socket.SOCK_STREAM, 0)
cares.ares_getaddrinfo(channel, sys.argv[1].encode(), b"80", ctypes.byref(hints), done, None)
while "status" not in answer:
    reading, writing = (ctypes.c_ulong * 16)(), (ctypes.c_ulong * 16)()
    count = cares.ares_fds(channel, reading, writing)
    libc.select(count, reading, writing, None, (ctypes.c_long * 2)(1, 0))
    cares.ares_process(channel, reading, writing)
print(json.dumps({"status": answer["status"], "addresses": sorted(answer.get("addresses", []))}))
"""
ARES_SUCCESS, ARES_ENOTFOUND = 0, 4


@pytest.fixture(scope="module", autouse=True)
def network(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Two addresses, and a pod's resolv.conf and nsswitch.conf in place of the machine's (for this process alone)."""
    for address in (ADDRESS, OUTSIDE):
        subprocess.run(["ip", "address", "add", f"{address}/32", "dev", "lo"], check=True)
    folder = tmp_path_factory.mktemp("etc")
    libc = ctypes.CDLL(None, use_errno=True)
    texts = {
        "/etc/resolv.conf": f"nameserver {ADDRESS}\n"
        "search default.svc.cluster.local svc.cluster.local cluster.local\noptions ndots:5\n",
        "/etc/nsswitch.conf": "hosts: files dns\n",
    }
    for target, text in texts.items():
        source = folder / Path(target).name
        source.write_text(text)
        if libc.mount(os.fsencode(source), os.path.realpath(target).encode(), None, MS_BIND, None) != 0:
            pytest.skip(f"cannot bind-mount over {target}: {os.strerror(ctypes.get_errno())}")
    yield
    for target in texts:
        libc.umount2(os.path.realpath(target).encode(), 2)
    for address in (ADDRESS, OUTSIDE):
        subprocess.run(["ip", "address", "del", f"{address}/32", "dev", "lo"], check=True)


@asynccontextmanager
async def serving(**options: Any) -> AsyncIterator[Server]:
    """A server on port 53, and beside it the outside world: a second one that owns example.test."""
    outside = Server(Config(listen=(OUTSIDE,), zone="example.test"))
    server = Server(Config(listen=(ADDRESS,), reverse_cidrs=("10.96.0.0/16",), **options))
    async with task_set() as tasks:
        ready = [asyncio.Event(), asyncio.Event()]
        tasks.start(server.run(None, ready[0].set))
        tasks.start(outside.run(None, ready[1].set))
        async with asyncio.timeout(10):
            for event in ready:
                await event.wait()
        # In the zone example.test a Service of namespace `prod` is called legacy.prod.svc.example.test.
        fill(outside.table, [service("legacy", "192.0.2.7", namespace="prod")], namespaces=("prod",))
        fill(
            server.table,
            [
                service("web", "10.96.0.20", "fd00:96::20"),
                service("db"),
                part("db", endpoint("10.244.1.7", "db-0"), endpoint("10.244.2.7", "db-1")),
                service("big"),
                part("big", *(f"10.244.9.{i + 1}" for i in range(100))),
                service("legacy", external="legacy.prod.svc.example.test"),
            ],
        )
        yield server


@pytest.fixture
async def cluster() -> AsyncIterator[Server]:
    async with serving(upstreams=(OUTSIDE,)) as server:
        yield server


@pytest.fixture
async def completing(tmp_path: Path) -> AsyncIterator[Server]:
    """The same, with search completion."""
    (tmp_path / "dns.yaml").write_text(f"chain: [search: , cache: , forward: {{to: {OUTSIDE}}}]")
    async with serving(config_file=str(tmp_path / "dns.yaml")) as server:
        yield server


async def run(*words: str) -> dict[str, Any]:
    process = await asyncio.create_subprocess_exec(sys.executable, *words, stdout=asyncio.subprocess.PIPE)
    async with asyncio.timeout(30):
        output, _ = await process.communicate()
    answer: dict[str, Any] = json.loads(output)
    return answer


NAMES = [
    pytest.param("web", "web.default.svc.cluster.local", ["10.96.0.20", "fd00:96::20"], id="short name"),
    pytest.param("web.default", "web.default.svc.cluster.local", ["10.96.0.20", "fd00:96::20"], id="with namespace"),
    pytest.param("db-0.db", "db-0.db.default.svc.cluster.local", ["10.244.1.7"], id="stable pod name"),
    pytest.param("db", "db.default.svc.cluster.local", ["10.244.1.7", "10.244.2.7"], id="headless"),
    pytest.param("legacy", "legacy.prod.svc.example.test", ["192.0.2.7"], id="ExternalName"),
    pytest.param(
        "legacy.prod.svc.example.test",
        "legacy.prod.svc.example.test",
        ["192.0.2.7"],
        id="outside, last of the search",
    ),
]


@pytest.mark.parametrize(("name", "canonical", "addresses"), NAMES)
async def test_the_c_library_resolves(cluster: Server, name: str, canonical: str, addresses: list[str]) -> None:
    assert await run("-c", GETADDRINFO, name) == {"canonical": canonical, "addresses": addresses}


async def test_the_c_library_falls_back_to_tcp_for_a_large_answer(cluster: Server) -> None:
    assert len((await run("-c", GETADDRINFO, "big"))["addresses"]) == 100


@pytest.mark.parametrize(
    "name", ["nothing.example.test", "nothing.default.svc.cluster.local", "db-9.db.default.svc.cluster.local."]
)
async def test_the_c_library_hears_that_a_name_does_not_exist(cluster: Server, name: str) -> None:
    assert await run("-c", GETADDRINFO, name) == {"error": "NONAME"}


async def test_the_c_library_finds_the_name_of_an_address(cluster: Server) -> None:
    code = "import json, socket, sys; print(json.dumps(socket.gethostbyaddr(sys.argv[1])))"
    names = {"10.96.0.20": "web", "fd00:96::20": "web", "10.244.1.7": "db-0.db"}
    for address, name in names.items():
        assert (await run("-c", code, address))[0] == f"{name}.default.svc.cluster.local"


async def test_the_echo_command_shows_the_way(cluster: Server) -> None:
    outcome = await run("-m", "pilotage.testing.echo", "resolve", "legacy.prod.svc.example.test", "--type", "A")
    assert outcome["servers"] == [ADDRESS]
    assert [step["rcode"] for step in outcome["asked"]] == ["NXDOMAIN"] * 3 + ["NOERROR"]
    outcome = await run("-m", "pilotage.testing.echo", "resolve", "_http._tcp.db", "--type", "SRV")
    assert sorted(record["data"] for record in outcome["records"]) == [
        f"0 50 8080 db-{i}.db.default.svc.cluster.local." for i in (0, 1)
    ]


@pytest.fixture(scope="module")
def musl(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """A program that asks musl's getaddrinfo."""
    if platform.machine() != "x86_64":
        pytest.skip("the program's first instructions are written for x86_64")
    folder = tmp_path_factory.mktemp("musl")
    (folder / "ask.c").write_text(MUSL)
    (folder / "libc.so").symlink_to(MUSL_LOADER)
    words = ["tcc", "-nostdlib", "-o", str(folder / "ask"), str(folder / "ask.c"), str(folder / "libc.so")]
    subprocess.run(words, check=True)
    return [str(MUSL_LOADER), str(folder / "ask")]


async def lines(*words: str) -> list[str]:
    process = await asyncio.create_subprocess_exec(*words, stdout=asyncio.subprocess.PIPE)
    async with asyncio.timeout(30):
        output, _ = await process.communicate()
    return sorted(set(output.decode().split()))


@pytest.mark.parametrize(("name", "canonical", "addresses"), NAMES)
async def test_musl_resolves(cluster: Server, musl: list[str], name: str, canonical: str, addresses: list[str]) -> None:
    assert await lines(*musl, name) == addresses


async def test_musl_hears_that_a_name_does_not_exist(cluster: Server, musl: list[str]) -> None:
    for name in ("nothing.example.test", "db-9.db.default.svc.cluster.local."):
        assert await lines(*musl, name) == ["NONAME"]


async def test_musl_takes_what_fits_of_a_large_answer(cluster: Server, musl: list[str]) -> None:
    """Debian's musl (1.2.3) never asks by TCP: a truncated answer without addresses would leave its programs none."""
    found = await lines(*musl, "big")
    assert len(found) >= 20
    assert set(found) <= {f"10.244.9.{i + 1}" for i in range(100)}


@pytest.mark.parametrize(("name", "canonical", "addresses"), NAMES)
async def test_c_ares_resolves(cluster: Server, name: str, canonical: str, addresses: list[str]) -> None:
    assert await run("-c", C_ARES, name) == {"status": ARES_SUCCESS, "addresses": addresses}


async def test_c_ares_takes_a_large_answer_by_tcp_and_hears_that_a_name_does_not_exist(cluster: Server) -> None:
    assert len((await run("-c", C_ARES, "big"))["addresses"]) == 100
    assert (await run("-c", C_ARES, "nothing.example.test"))["status"] == ARES_ENOTFOUND


@pytest.mark.parametrize(("name", "canonical", "addresses"), NAMES)
async def test_every_resolver_takes_what_search_completion_answers(
    completing: Server, musl: list[str], name: str, canonical: str, addresses: list[str]
) -> None:
    assert await run("-c", GETADDRINFO, name) == {"canonical": canonical, "addresses": addresses}
    assert await lines(*musl, name) == addresses
    assert await run("-c", C_ARES, name) == {"status": ARES_SUCCESS, "addresses": addresses}


async def test_search_completion_makes_up_nothing(completing: Server, musl: list[str]) -> None:
    # The outside world refuses to say anything about `db-9.db.`, which completion asks it for.
    for name in ("nothing.example.test", "db-9.db.default.svc.cluster.local."):
        assert await run("-c", GETADDRINFO, name) == {"error": "NONAME"}
        assert await lines(*musl, name) == ["NONAME"]
        assert (await run("-c", C_ARES, name))["status"] == ARES_ENOTFOUND


async def test_search_completion_ends_the_search_at_the_first_question(completing: Server) -> None:
    words = ("-m", "pilotage.testing.echo", "resolve", "legacy.prod.svc.example.test", "--type", "A")
    assert [step["rcode"] for step in (await run(*words))["asked"]] == ["NOERROR"]
