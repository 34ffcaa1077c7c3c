"""Runs the benchmarks named on the command line, or all of them; prints one JSON line per figure."""

import argparse

from bench import apiserver, cluster, crashes, dns, pods, proxy

BENCHMARKS = {
    "apiserver": apiserver.figures,
    "cluster": cluster.figures,
    "crashes": crashes.figures,
    "dns": dns.figures,
    "pods": pods.figures,
    "proxy": proxy.figures,
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench", epilog="example: python -m bench cluster")
    parser.add_argument("names", nargs="*", choices=[*BENCHMARKS, []], help="which benchmarks; all when none is named")
    for name in parser.parse_args().names or BENCHMARKS:
        for figure in BENCHMARKS[name]():
            print(figure.line(), flush=True)


if __name__ == "__main__":
    main()
