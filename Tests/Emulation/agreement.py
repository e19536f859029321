#!/usr/bin/env python3
"""The same load through the live emulation and through the simulator: prints both, and fails where they differ too much.

usage: agreement.py [--build DIR] [--only NAME] [--json FILE]

Takes the time that the deployment would take, a few minutes for all cases. Other work on the machine makes the live
side late; what it missed of its schedule is in the table.
"""

import argparse
import json
import pathlib
import socket
import subprocess
import sys
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parents[2]

# Largest difference that passes, of the means: throughput, time per output token, time to first token.
LIMITS = {"output_throughput": 0.03, "mean_tpot_ms": 0.03, "mean_ttft_ms": 0.05}

CASES = {
    "closed loop, 16 in flight": {
        "deployment": [],
        "load": ["--num-prompts", "48", "--random-input-len", "1024", "--random-output-len", "128",
                 "--max-concurrency", "16"],
    },
    "closed loop, 128 in flight": {
        "deployment": [],
        "load": ["--num-prompts", "256", "--random-input-len", "512", "--random-output-len", "128",
                 "--random-range-ratio", "0.5", "--max-concurrency", "128"],
    },
    "Poisson arrivals, mixed steps": {
        "deployment": ["--step-policy", "mixed"],
        "load": ["--num-prompts", "60", "--random-input-len", "2048", "--random-output-len", "96",
                 "--random-range-ratio", "0.25", "--request-rate", "3"],
    },
    "prefill and decode on 8 chips each": {
        "deployment": ["--slice", "v7x-8", "--prefill", "1", "--decode", "1"],
        "load": ["--num-prompts", "48", "--random-input-len", "1024", "--random-output-len", "128",
                 "--max-concurrency", "16"],
    },
}


def free_ports(count):
    sockets = [socket.socket() for _ in range(count)]
    try:
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
    finally:
        for one in sockets:
            one.close()


def simulated(build, case):
    command = [build / "ironling", "simulate", "serve", "--json", "--quiet"]
    return json.loads(subprocess.check_output(command + case["deployment"] + case["load"]))


def pacing(port):
    """Mean part of a step's time by which its end was missed, and the part of the steps that missed it by 2 %."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        text = answer.read().decode()
    def total(name):
        prefix = f"ironling_attention_emulated_{name}{{"
        return sum(float(line.split()[-1]) for line in text.splitlines() if line.startswith(prefix))
    return total("late_seconds_total") / total("seconds_total"), total("late_steps_total") / total("steps_total")


def live(build, case):
    http, rpc = free_ports(2)
    services = subprocess.Popen(
        [build / "ironling", "up", "--mode", "emulate", "--model", "ling-2.6-1t", "--log-level", "error",
         "--http-port", str(http), "--rpc-port", str(rpc)] + case["deployment"],
        stdout=subprocess.PIPE, text=True)
    try:
        for line in services.stdout:
            if line.startswith("ready "):
                break
        else:
            raise SystemExit("the services ended before they were ready")
        command = [build / "ironling", "load", "--json", "--quiet", "--warmup-requests", "0", "--gateway",
                   f"127.0.0.1:{rpc}"]
        result = json.loads(subprocess.check_output(command + case["load"]))
        return result, pacing(http)
    finally:
        services.terminate()
        services.wait(timeout=60)


def compare(name, ours, theirs, missed):
    print(f"{name}  (live steps ended {missed[0]:.2%} late on average, {missed[1]:.1%} of them by more than 2 %)")
    rows = []
    for key in list(LIMITS) + ["p99_ttft_ms", "p99_itl_ms", "duration"]:
        difference = theirs[key] / ours[key] - 1 if ours[key] else 0
        limit = LIMITS.get(key)
        verdict = "" if limit is None else "ok" if abs(difference) <= limit else f"more than {limit:.0%}"
        print(f"  {key:18} simulated {ours[key]:11.2f}  live {theirs[key]:11.2f}  {difference:+7.2%}  {verdict}")
        rows.append({"metric": key, "simulated": ours[key], "live": theirs[key], "difference": difference,
                     "limit": limit, "passes": limit is None or abs(difference) <= limit})
    return {"case": name, "rows": rows, "mean_step_error": missed[0], "late_step_share": missed[1]}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--build", type=pathlib.Path, default=ROOT / ".build/release")
    parser.add_argument("--only", help="cases whose names contain this")
    parser.add_argument("--json", type=pathlib.Path, help="write the numbers to a file too")
    options = parser.parse_args()
    results = []
    for name, case in CASES.items():
        if options.only and options.only not in name:
            continue
        ours = simulated(options.build, case)
        theirs, missed = live(options.build, case)
        results.append(compare(name, ours, theirs, missed))
    if options.json:
        options.json.write_text(json.dumps(results, indent=1) + "\n")
    if not results:
        raise SystemExit(f"no case is called {options.only}; known are {', '.join(CASES)}")
    if not all(row["passes"] for result in results for row in result["rows"]):
        raise SystemExit("live emulation and simulator differ by more than they may")


if __name__ == "__main__":
    sys.exit(main())
