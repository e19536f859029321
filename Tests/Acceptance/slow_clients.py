#!/usr/bin/env python3
"""What hostile clients cost the others: latency of completions alone, beside 1,000 connections that send their headers a
byte at a time, and beside bodies of 100 MB; measured in turns, so that what else the machine does falls on both. Prints
medians and their ratios; fails above --limit.
"""

import argparse
import http.client
import json
import multiprocessing
import socket
import statistics
import sys
import time
import urllib.parse

from services import Services, demo_model

REQUEST = json.dumps({"prompt": [1, 2, 3], "max_tokens": 16, "temperature": 0, "ignore_eos": True})


def trickle(host, port, count, ready, stop):
    """Keeps `count` connections open, each sending one byte of its headers every second."""
    start = b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\nX-Filler: "
    connections = []
    while not stop.is_set():
        while len(connections) < count and not stop.is_set():
            try:
                connection = socket.create_connection((host, port), 5)
            except OSError:
                break
            connection.setblocking(False)
            connection.send(start)
            connections.append(connection)
        ready.value = len(connections)
        alive = []
        for connection in connections:
            try:
                connection.send(b"a")
                alive.append(connection)
            except OSError:
                connection.close()
        connections = alive
        stop.wait(1)


def flood(host, port, chunked, ready, stop):
    """Sends bodies of 100 MB, one after the other, as fast as they are taken."""
    block = b"a" * (1 << 16)
    framed = b"10000\r\n" + block + b"\r\n" if chunked else block
    framing = "Transfer-Encoding: chunked" if chunked else f"Content-Length: {100 << 20}"
    while not stop.is_set():
        try:
            with socket.create_connection((host, port), 5) as connection:
                connection.settimeout(5)
                connection.sendall(f"POST /v1/completions HTTP/1.1\r\nHost: x\r\n{framing}\r\n\r\n".encode())
                for _ in range((100 << 20) // len(block)):
                    connection.sendall(framed)
        except OSError:
            pass
        with ready.get_lock():
            ready.value += 1
        stop.wait(0.05)


def latencies(url, seconds):
    """Milliseconds of completions one after the other."""
    connection = http.client.HTTPConnection(url.hostname, url.port, timeout=30)
    times = []
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        begin = time.perf_counter()
        connection.request("POST", "/v1/completions", REQUEST)
        answer = connection.getresponse()
        answer.read()
        if answer.status != 200:
            raise RuntimeError(f"status {answer.status}")
        times.append(1000 * (time.perf_counter() - begin))
    connection.close()
    return times


def summary(name, times, base):
    median, high = statistics.median(times), statistics.quantiles(times, n=20)[-1]
    ratio = median / statistics.median(base)
    print(f"{name:32} {len(times):5} requests   median {median:7.2f} ms   p95 {high:7.2f} ms   median × {ratio:4.2f}")
    return ratio


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--connections", type=int, default=1000)
    parser.add_argument("--seconds", type=float, default=2, help="of each measurement (default 2)")
    parser.add_argument("--rounds", type=int, default=4, help="measurements alone and beside in turn (default 4)")
    parser.add_argument("--limit", type=float, default=1.5, help="highest ratio of medians (default 1.5)")
    options = parser.parse_args()
    services = Services(model=demo_model())
    url = urllib.parse.urlparse(services.url)
    ratios = []
    try:
        latencies(url, 2)
        for name, attack, arguments, enough in [
            (f"{options.connections} slow connections", trickle, (options.connections,), options.connections),
            ("100 MB bodies", flood, (False,), 1), ("100 MB bodies, chunked", flood, (True,), 1),
        ]:
            alone, beside = [], []
            for _ in range(options.rounds):
                alone += latencies(url, options.seconds)
                stop, ready = multiprocessing.Event(), multiprocessing.Value("i", 0)
                attacker = multiprocessing.Process(
                    target=attack, args=(url.hostname, url.port, *arguments, ready, stop))
                attacker.start()
                while ready.value < enough and attacker.is_alive():
                    time.sleep(0.05)
                beside += latencies(url, options.seconds)
                stop.set()
                attacker.join(10)
            summary("alone", alone, alone)
            ratios.append(summary(name, beside, alone))
    finally:
        status = services.stop()
    return status or int(max(ratios) > options.limit)


if __name__ == "__main__":
    sys.exit(main())
