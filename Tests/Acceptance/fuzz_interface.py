#!/usr/bin/env python3
"""Property-based tests of the HTTP face against its OpenAPI document, by schemathesis.

Starts the services, sends valid and invalid requests that schemathesis makes from the document, and fails on any
answer with status 5xx (but for the 504 of a request that gave itself too little time), any that the document does not
allow, and any that takes too long.
"""

import argparse
import os
import subprocess
import sys

from services import ROOT, Services, demo_model

FOLDER = os.path.dirname(os.path.abspath(__file__))
CHECKS = ("not_a_server_error,status_code_conformance,content_type_conformance,response_headers_conformance,"
          "response_schema_conformance,negative_data_rejection,allow_header_conformance")


def summary(output):
    """The lines that say how many cases were tried and what came of them."""
    return "\n".join(line for line in output.splitlines() if "generated" in line or line.startswith("Seed"))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--examples", type=int, default=150, help="random requests to each operation (default 150)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=20, help="longest time of one answer (default 20)")
    parser.add_argument("--quiet", action="store_true", help="show what schemathesis says only when it finds something")
    options = parser.parse_args()
    document = os.path.join(ROOT, "Services", "Gateway", "Library", "openapi.json")
    environment = dict(os.environ, SCHEMATHESIS_HOOKS="interface_hooks", PYTHONPATH=FOLDER)
    services = Services(model=demo_model())
    try:
        result = subprocess.run([
            os.path.join(os.path.dirname(sys.executable), "schemathesis"), "--config-file",
            os.path.join(FOLDER, "schemathesis.toml"), "run", document, "--url", services.url,
            "--checks", CHECKS, "--max-response-time", str(options.seconds), "--request-timeout",
            str(options.seconds + 5), "--max-examples", str(options.examples), "--seed", str(options.seed),
            "--continue-on-failure", "--phases", "examples,coverage,fuzzing", "--suppress-health-check", "all",
            "--warnings", "off", "--no-shrink"],
            cwd=os.path.join(ROOT, ".build"), text=True, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        status = result.returncode
        print(result.stdout if status or not options.quiet else summary(result.stdout))
        counters = services.wait_for(lambda c: c["attention0.slots_in_use"] == 0)
        print(f"slots in use afterwards: {counters['attention0.slots_in_use']}")
        status = status or counters["attention0.slots_in_use"]
    finally:
        status = services.stop() or status
    return status


if __name__ == "__main__":
    sys.exit(main())
