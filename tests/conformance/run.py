"""Runs the cases against the servers, and prints a table. See `scripts/conformance`."""

import argparse
import concurrent.futures
import os
import sys
import tempfile

import floods
import http1
import http2
import peers
from upstream import Upstream
from wire import Ended, Silence


def try_http2(peer, upstream, run, patience):
    client = http2.Client(("127.0.0.1", peer.port), peers.HOST, patience)
    client.host, client.upstream = peers.HOST, upstream
    try:
        run(client)
        return None
    except http2.Wrong as wrong:
        return str(wrong)
    except Ended:
        return "the connection was closed"
    except Silence:
        return "nothing came"
    finally:
        client.close()


def try_http1(peer, upstream, run, patience):
    return run(("127.0.0.1", peer.port), upstream, patience)


SUITES = {"http2": (http2.CASES, try_http2), "http1": (http1.CASES, try_http1)}


def play(name, binary, cases, attempt, arguments):
    """What went wrong, for each case, of one server."""
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        upstream = Upstream()
        peer = peers.start(name, binary, folder, upstream.port)
        if peer is None:
            print(f"{name} does not start", file=sys.stderr)
            return None
        try:
            results = []
            for _, _, run in cases:
                upstream.forget()
                try:
                    results.append(attempt(peer, upstream, run, arguments.patience))
                except OSError as error:
                    results.append(f"cannot connect: {error}")
                if peer.process.poll() is not None:
                    results[-1] = "the server has ended"
                    peer = peers.start(name, binary, folder, upstream.port)
                    if peer is None:
                        return None
            return results
        finally:
            if peer:
                peer.stop()


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("suites", nargs="*", choices=[*SUITES, "floods", []],
                        help="which; without: http2 and http1")
    parser.add_argument("--staunch", required=True, help="the program")
    parser.add_argument("--servers", default=",".join(peers.KINDS), help="which; without: all")
    parser.add_argument("--only", default="", help="cases whose title has this")
    parser.add_argument("--patience", type=float, default=2, help="seconds")
    parser.add_argument("-v", "--verbose", action="store_true", help="what came, of each failure")
    arguments = parser.parse_args()
    binaries = {}
    for name in arguments.servers.split(","):
        binary = os.path.abspath(arguments.staunch) if name == "staunch" else peers.find(name)
        if binary:
            binaries[name] = binary
    worse = 0
    for suite in arguments.suites or SUITES:
        if suite == "floods":
            for name, binary in binaries.items():
                with tempfile.TemporaryDirectory() as folder:
                    os.chmod(folder, 0o755)
                    floods.run(name, binary, folder, arguments.only)
            continue
        cases, attempt = SUITES[suite]
        cases = [case for case in cases if arguments.only in f"{case[0]} {case[1]}"]
        with concurrent.futures.ThreadPoolExecutor(len(binaries)) as pool:
            runs = {
                name: pool.submit(play, name, binary, cases, attempt, arguments)
                for name, binary in binaries.items()
            }
        results = {name: run.result() for name, run in runs.items() if run.result() is not None}
        worse += report(suite, cases, results, arguments.verbose)
    sys.exit(min(worse, 1))


def report(suite, cases, results, verbose):
    """Prints the cases in which a server fails; in how many staunch alone is among them or not."""
    width = max((len(f"{section}  {title}") for section, title, _ in cases), default=0)
    print(f"\n{suite}: {len(cases)} cases; x: failed\n")
    print(" " * width, *(f"{name:>8}" for name in results))
    worse = 0
    for at, (section, title, _) in enumerate(cases):
        wrong = {name: result[at] for name, result in results.items() if result[at]}
        if not wrong:
            continue
        marks = ["x" if name in wrong else "." for name in results]
        star = ""
        if "staunch" in wrong and len(wrong) < len(results) or list(results) == ["staunch"]:
            worse += 1
            star = "  <--"
        print(f"{section}  {title}".ljust(width), *(f"{mark:>8}" for mark in marks), star)
        if verbose:
            for name, why in wrong.items():
                print(f"      {name}: {why}")
    totals = [sum(not one for one in result) for result in results.values()]
    print("passed".ljust(width), *(f"{total:>8}" for total in totals))
    return worse


if __name__ == "__main__":
    main()
