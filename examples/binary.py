#!/usr/bin/env python3
"""Tokens with their logprobs over the binary protocol: examples/binary.py [HOST:PORT]"""

import math
import os
import sys

sys.path.append(os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "Protocol", "python"))

from ironling_client import IronlingClient  # noqa: E402


def main(address="127.0.0.1:7000"):
    host, _, port = address.rpartition(":")
    with IronlingClient(host, int(port)) as client:
        print("text", "token", "probability", sep="\t")
        for item in client.generate(prompt="It is a truth", max_tokens=8, temperature=0.7, seed=7, logprobs=2):
            for token, logprob in item["tokens"]:
                print(repr(item["text"]), token, f"{math.exp(logprob):.3f}", sep="\t")
        print("end:", client.end)
        counters = client.status()
        print("requests placed by the gateway:", counters["requests_placed"])


if __name__ == "__main__":
    main(*sys.argv[1:])
