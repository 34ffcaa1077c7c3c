"""Exec and port-forward by the Python client, which has words for WebSockets of its own; what they gave, as JSON.

A program rather than a test: that client leaves its sockets to the end of the process. Arguments: the kubeconfig and
the namespace in which `streams.yaml` was applied.
"""

import json
import sys

import kubernetes.client
import kubernetes.config
import kubernetes.stream

TIMEOUT_S = 60


def main(kubeconfig: str, namespace: str) -> None:
    kubernetes.config.load_kube_config(kubeconfig)
    core = kubernetes.client.CoreV1Api()
    ran = kubernetes.stream.stream(
        core.connect_get_namespaced_pod_exec,
        "talk",
        namespace,
        container="main",
        command=["sh", "-c", "read line; echo got $line; echo problem >&2; exit 3"],
        stdin=True,
        stdout=True,
        stderr=True,
        tty=False,
        _preload_content=False,
    )
    ran.write_stdin("a line\n")  # sent in a text message, not a binary one
    ran.run_forever(timeout=TIMEOUT_S)
    forwarded = kubernetes.stream.portforward(
        core.connect_get_namespaced_pod_portforward, "talk", namespace, ports="9090"
    )
    connection = forwarded.socket(9090)
    connection.setblocking(True)
    connection.sendall(b"GET / HTTP/1.1\r\nSec-WebSocket-Key: x\r\n\r\n")
    answer = b""
    while len(answer) < 12 and (piece := connection.recv(12 - len(answer))):
        answer += piece
    connection.close()
    found = {"out": ran.read_stdout(), "err": ran.read_stderr(), "code": ran.returncode, "port": answer.decode()}
    print(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
