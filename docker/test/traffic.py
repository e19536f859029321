"""Requests with known answers against a gateway, for docker/test/run.

    traffic.py --url http://127.0.0.1:8000 once                  every prompt, one after the other
    traffic.py --url ... chat                                    one chat, streamed and not
    traffic.py --url ... load --workers 8 --until FILE           prompts in turn until FILE exists
    traffic.py --url ... idle --within 20                        waits until nothing is in flight or held
    traffic.py --url ... metric NAME [LABEL=VALUE]               the sum of a metric over its (other) labels

Every answer is compared, token by token, with the reference file. The exit status is 1 when one differs, fails or does
not come in time. Only the standard library is used.
"""

import argparse
import json
import os
import sys
import threading
import time
import urllib.error
import urllib.request

REQUEST_SECONDS = 60


def post(url, body, timeout=REQUEST_SECONDS):
    request = urllib.request.Request(
        url, json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=timeout) as answer:
        return json.load(answer)


def generate(url, prompt, count):
    sampling = {"temperature": 0, "max_new_tokens": count, "ignore_eos": True}
    answer = post(url + "/generate", {"input_ids": prompt, "sampling_params": sampling})
    return answer["output_ids"]


def describe(error):
    if isinstance(error, urllib.error.HTTPError):
        return f"status {error.code}: {error.read(500).decode(errors='replace')}"
    return f"{type(error).__name__}: {error}"


class Check:
    """What came back, compared with the references."""

    def __init__(self, url, references):
        self.url = url
        self.references = references
        self.lock = threading.Lock()
        self.count = 0
        self.failures = []
        self.longest = 0.0

    def one(self, index):
        reference = self.references[index % len(self.references)]
        start = time.monotonic()
        try:
            tokens = generate(self.url, reference["prompt"], len(reference["tokens"]))
            wrong = None if tokens == reference["tokens"] else self.difference(tokens, reference)
        except (OSError, ValueError, KeyError) as error:
            wrong = describe(error)
        with self.lock:
            self.count += 1
            self.longest = max(self.longest, time.monotonic() - start)
            if wrong:
                self.failures.append(f"prompt {index % len(self.references)}: {wrong}")

    @staticmethod
    def difference(tokens, reference):
        expected = reference["tokens"]
        place = next((i for i, (a, b) in enumerate(zip(tokens, expected)) if a != b), min(len(tokens), len(expected)))
        return f"WRONG TOKEN at {place}: {tokens[place:place + 4]} instead of {expected[place:place + 4]}"

    def report(self, what):
        print(f"{what}: {self.count} answers, {len(self.failures)} wrong or failed, longest {self.longest:.2f} s")
        for failure in self.failures[:5]:
            print(f"  {failure}")
        return 0 if self.count and not self.failures else 1


def once(check):
    for index in range(len(check.references)):
        check.one(index)
    return check.report("each prompt once")


def load(check, workers, until, longest):
    end = time.monotonic() + longest

    def work(worker):
        index = worker
        while not os.path.exists(until) and time.monotonic() < end:
            check.one(index)
            index += workers

    threads = [threading.Thread(target=work, args=(number,)) for number in range(workers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return check.report(f"load of {workers} workers")


def chat(url):
    body = {
        "model": post_model(url),
        "messages": [{"role": "user", "content": "What is it that you read?"}],
        "temperature": 0,
        "max_tokens": 32,
    }
    whole = post(url + "/v1/chat/completions", body)["choices"][0]["message"]["content"]
    request = urllib.request.Request(
        url + "/v1/chat/completions",
        json.dumps(body | {"stream": True}).encode(),
        {"Content-Type": "application/json"},
    )
    text, is_done = "", False
    with urllib.request.urlopen(request, timeout=REQUEST_SECONDS) as answer:
        for line in answer:
            if line.strip() == b"data: [DONE]":
                is_done = True
            elif line.startswith(b"data: "):
                for choice in json.loads(line[6:])["choices"]:
                    text += choice["delta"].get("content") or ""
    print(f"chat: {whole!r}")
    if not whole or text != whole or not is_done:
        print(f"  streamed: {text!r}, done: {is_done}")
        return 1
    return 0


def post_model(url):
    with urllib.request.urlopen(url + "/v1/models", timeout=REQUEST_SECONDS) as answer:
        return json.load(answer)["data"][0]["id"]


def metrics(url):
    with urllib.request.urlopen(url + "/metrics", timeout=10) as answer:
        for line in answer.read().decode().splitlines():
            if line and not line.startswith("#"):
                name, value = line.rsplit(" ", 1)
                yield name, float(value)


HELD = {"ironling_gateway_requests"} | {
    "ironling_attention_" + name
    for name in (
        "slots_in_use", "kv_pages_in_use", "transfers_open", "requests_running", "requests_waiting",
        "requests_receiving", "requests_handing_off",
    )
}


def held(url):
    """What is in flight or held anywhere, by name."""
    values = list(metrics(url))
    missing = HELD - {name.split("{")[0] for name, _ in values}
    if missing:
        raise SystemExit(f"the gateway does not show {sorted(missing)}")
    return {name: value for name, value in values if value and name.split("{")[0] in HELD}


def idle(url, within):
    end = time.monotonic() + within
    left = held(url)
    while left and time.monotonic() < end:
        time.sleep(0.5)
        left = held(url)
    print(f"held after the load: {left or 'nothing'}")
    return 1 if left else 0


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", required=True)
    parser.add_argument("--references", help="JSON list of objects with prompt and tokens")
    parser.add_argument("--tokens", type=int, default=64, help="tokens of an answer, at most as in the references")
    parts = parser.add_subparsers(dest="part", required=True)
    parts.add_parser("once")
    parts.add_parser("chat")
    part = parts.add_parser("load")
    part.add_argument("--workers", type=int, default=8)
    part.add_argument("--until", required=True)
    part.add_argument("--longest", type=float, default=300)
    part = parts.add_parser("idle")
    part.add_argument("--within", type=float, default=20)
    part = parts.add_parser("metric")
    part.add_argument("name")
    part.add_argument("label", nargs="?", default="")
    arguments = parser.parse_args()
    references = []
    if arguments.references:
        with open(arguments.references, encoding="utf-8") as file:
            references = [
                {"prompt": entry["prompt"], "tokens": entry["tokens"][: arguments.tokens]} for entry in json.load(file)
            ]
    check = Check(arguments.url, references)
    if arguments.part == "once":
        return once(check)
    if arguments.part == "load":
        return load(check, arguments.workers, arguments.until, arguments.longest)
    if arguments.part == "chat":
        return chat(arguments.url)
    if arguments.part == "idle":
        return idle(arguments.url, arguments.within)
    label, _, text = arguments.label.partition("=")
    values = [
        value
        for name, value in metrics(arguments.url)
        if name.split("{")[0] == arguments.name and (not label or f'{label}="{text}"' in name)
    ]
    print(int(sum(values)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
