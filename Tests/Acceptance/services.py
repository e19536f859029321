"""Runs the services for tests that talk to them as any client would."""

import json
import os
import signal
import subprocess
import tempfile
import time
import urllib.error
import urllib.request

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
IRONLING = os.path.join(ROOT, ".build", "release", "ironling")
GOLDEN = os.path.join(ROOT, "Tests", "Fixtures", "golden", "base")


def demo_model():
    """The demo model, or the golden checkpoint where there is none."""
    demo = os.path.join(ROOT, "Models", "ling-tiny")
    return demo if os.path.exists(os.path.join(demo, "model.safetensors")) else GOLDEN


class Services:
    """`ironling up` on free ports."""

    def __init__(self, *arguments, model=GOLDEN, log=None, rpc_port=0):
        """`log` is an open file for what the services log; `rpc_port` that of the binary protocol, 0 any free one."""
        self.metrics = []
        self.process = subprocess.Popen(
            [IRONLING, "up", "--model", model, "--byte-tokenizer",
             "--http-port", "0", "--rpc-port", str(rpc_port), *arguments],
            stdout=subprocess.PIPE, stderr=log, text=True)
        self.url = None
        self.is_stopping = False
        for line in self.process.stdout:
            if line.startswith("metrics "):
                self.metrics = line.split()[1].split(",")
            if line.startswith("ready http://"):
                self.url = line.split()[1]
                return
        raise RuntimeError("the services ended before they were ready")

    def terminate(self):
        """Asks once for a stop: a second request would not let streams finish."""
        if not self.is_stopping:
            self.process.send_signal(signal.SIGTERM)
        self.is_stopping = True

    def stop(self):
        """Stops the services; returns the exit status."""
        self.terminate()
        status = self.process.wait(60)
        self.process.stdout.close()
        return status

    def request(self, path, body=None, headers=None, method=None):
        """Status, headers and body of an answer, whatever the status."""
        data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data, headers or {}, method=method)
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return answer.status, answer.headers, answer.read()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.headers, error.read()

    def ironling(self, *arguments):
        """Runs a command beside the services; returns its status and what it prints."""
        result = subprocess.run([IRONLING, *arguments], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=120)
        return result.returncode, result.stdout

    def children(self, name):
        """Process ids of a service, in the order in which they were started."""
        found = []
        for entry in filter(str.isdigit, os.listdir("/proc")):
            try:
                with open(f"/proc/{entry}/stat") as file:
                    stat = file.read()
                with open(f"/proc/{entry}/cmdline", "rb") as file:
                    command = file.read().split(b"\0")[0].decode()
            except OSError:
                continue
            if int(stat.rpartition(")")[2].split()[1]) == self.process.pid and command.endswith("ironling-" + name):
                found.append(int(entry))
        return sorted(found)

    def json(self, path, body=None, headers=None):
        return json.loads(self.request(path, body, headers)[2])

    def counters(self):
        return self.json("/get_server_info")["internal_states"][0]

    def wait_for(self, condition, seconds=20):
        """Waits until the counters meet a condition; returns them."""
        end = time.monotonic() + seconds
        while True:
            counters = self.counters()
            if condition(counters) or time.monotonic() > end:
                return counters
            time.sleep(0.02)


def file_of(text):
    """The path of a new file with this text; the caller removes it."""
    handle, path = tempfile.mkstemp(prefix="ironling-")
    with os.fdopen(handle, "w") as file:
        file.write(text)
    return path
