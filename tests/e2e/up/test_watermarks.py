"""What `pilotage status` says of a consumer that does not follow."""

import signal

import pytest
from tests.e2e.up.conftest import Home, eventually

pytestmark = pytest.mark.timeout(240)

SERVICE = """
apiVersion: v1
kind: Service
metadata: {{name: {name}}}
spec: {{selector: {{app: nobody}}, ports: [{{port: 80}}]}}
"""


def test_a_stopped_proxy_falls_behind_and_catches_up(home: Home) -> None:
    home.up("lag")

    def lags() -> dict[str, int]:
        return {name: lag for name, lag in home.lags("lag").items() if name.startswith("proxy-")}

    def write(name: str) -> None:
        home.kubectl("lag", "apply", "-f", "-", stdin=SERVICE.format(name=name))

    def tell(number: signal.Signals) -> None:
        pid = home.status("lag")["processes"]["proxy-n1"]["pid"]
        assert home.run("shell", "--name", "lag", "--", "kill", f"-{number.value}", str(pid)).returncode == 0

    everywhere = {"proxy-n1": 0, "proxy-n2": 0}
    eventually(lambda: lags() == everywhere)
    before = home.status("lag")["processes"]["proxy-n1"]
    tell(signal.SIGSTOP)
    try:
        write("one")
        eventually(lambda: lags()["proxy-n1"] > 0 and lags()["proxy-n2"] == 0)
        first = lags()["proxy-n1"]
        for name in ("two", "three"):
            write(name)
        eventually(lambda: lags()["proxy-n1"] > first and lags()["proxy-n2"] == 0)

        def as_people_read_it() -> bool:
            (row,) = [line for line in home.run("status", "--name", "lag").stdout.splitlines() if "proxy-n1" in line]
            return row.split()[-1] == str(lags()["proxy-n1"])

        eventually(as_people_read_it)  # not at once: what was written just now has its endpoints written after it
        second = lags()["proxy-n1"]
        home.kubectl("lag", "delete", "service", "three")
        eventually(lambda: lags()["proxy-n1"] > second and lags()["proxy-n2"] == 0)
    finally:
        tell(signal.SIGCONT)
    eventually(lambda: lags() == everywhere)
    after = home.status("lag")["processes"]["proxy-n1"]
    assert (after["pid"], after["restarts"]) == (before["pid"], before["restarts"]), "it was only slow"
