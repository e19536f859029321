"""/metrics of every service: promtool accepts it, Services/METRICS.md describes it, and clients cannot make it grow."""

import os
import re
import subprocess
import threading
import unittest
import urllib.request

from services import GOLDEN, ROOT, Services

PROMTOOL = os.path.join(ROOT, ".build", "tools", "promtool")
COMPLETION = {"prompt": [1, 2, 3], "max_tokens": 8, "temperature": 0, "ignore_eos": True}


def families(text):
    """Type, label names and number of series of each metric in a text."""
    result = {}
    for line in text.splitlines():
        if line.startswith("# TYPE "):
            name, kind = line.split()[2:]
            result[name] = {"type": kind, "labels": set(), "series": 0}
        elif not line.startswith("#"):
            sample, labels = re.match(r"(\w+)(?:\{(.*)\})? ", line).groups()
            name = re.sub(r"_(bucket|sum|count)$", "", sample) if sample not in result else sample
            result[name]["labels"] |= set(re.findall(r'(\w+)="', labels or "")) - {"le"}
            result[name]["series"] += 1
    return result


def documented():
    """Type and label names of each metric in the page."""
    result = {}
    with open(os.path.join(ROOT, "Services", "METRICS.md")) as file:
        for line in file:
            cells = [cell.strip() for cell in line.split("|")]
            if match := re.match(r"`(\w+)`$", cells[1] if len(cells) == 7 else ""):
                result[match[1]] = {"type": cells[2], "unit": cells[3],
                                    "labels": set(re.findall(r"`(\w+)`", cells[4])), "meaning": cells[5]}
    return result


class MetricsTests(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.services = Services("--metrics-port", "0", "--prefill", "1", "--decode", "2", "--log-level", "warning",
                                model=GOLDEN)
        cls.addClassCleanup(lambda: cls.assertEqual(cls(), cls.services.stop(), 0))

    def scrape(self, services=None):
        """What each service shows, and the gateway on its HTTP port."""
        services = services or self.services
        urls = [f"http://{place}/metrics" for place in services.metrics] + [services.url + "/metrics"]
        texts = []
        for url in urls:
            with urllib.request.urlopen(url, timeout=30) as answer:
                self.assertEqual(answer.headers["Content-Type"], "text/plain; version=0.0.4; charset=utf-8")
                texts.append(answer.read().decode())
        return texts

    def load(self, count):
        threads = [threading.Thread(target=self.services.request, args=("/v1/completions", COMPLETION))
                   for _ in range(count)]
        for thread in threads:
            thread.start()
        return threads

    @unittest.skipUnless(os.path.exists(PROMTOOL), "Tests/Acceptance/promtool could not fetch promtool")
    def test_promtool_accepts_every_service_idle_and_under_load(self):
        idle = self.scrape()
        threads = self.load(32)
        loaded = self.scrape()
        for thread in threads:
            thread.join()
        for text in idle + loaded + self.scrape():
            check = subprocess.run([PROMTOOL, "check", "metrics"], input=text, capture_output=True, text=True)
            self.assertEqual((check.returncode, check.stdout + check.stderr), (0, ""))

    def scrape_emulated(self):
        """The same of services that emulate, and have other counters."""
        services = Services("--mode", "emulate", "--speedup", "50", "--metrics-port", "0", "--log-level", "warning",
                            model="ling-2.6-1t")
        try:
            self.assertEqual(services.request("/v1/completions", {**COMPLETION, "prompt": "It is a truth"})[0], 200)
            return self.scrape(services)
        finally:
            self.assertEqual(services.stop(), 0)

    def test_the_page_and_the_services_agree(self):
        for thread in self.load(8):
            thread.join()
        shown = {}
        for text in self.scrape() + self.scrape_emulated():
            for name, family in families(text).items():
                known = shown.setdefault(name, family)
                self.assertEqual(known["type"], family["type"], name)
                known["labels"] |= family["labels"]
        page = documented()
        self.assertEqual(set(shown) - set(page), set(), "not in Services/METRICS.md")
        self.assertEqual(set(page) - set(shown), set(), "in Services/METRICS.md, but no service shows it")
        for name, family in shown.items():
            own = family["labels"] - ({"instance"} if name.startswith("ironling_attention_") else set())
            self.assertEqual((page[name]["type"], page[name]["labels"]), (family["type"], own), name)
            self.assertTrue(page[name]["meaning"].endswith("."), name)

    def test_times_and_tokens_add_up(self):
        def figure(name):
            found = re.search(rf"^{re.escape(name)} (\S+)$", self.scrape()[-1], re.MULTILINE)
            return float(found[1])

        names = ["ironling_ttft_seconds_count", "ironling_e2e_seconds_count", "ironling_inter_token_seconds_count",
                 "ironling_prompt_tokens_total", "ironling_generation_tokens_total", "ironling_queue_seconds_count",
                 'ironling_requests_total{outcome="length"}', 'ironling_requests_total{outcome="invalid"}',
                 'ironling_http_responses_total{status="4xx"}', "ironling_gateway_delivery_seconds_count"]
        before = [figure(name) for name in names]
        for _ in range(3):
            self.assertEqual(self.services.request("/v1/completions", COMPLETION)[0], 200)
        self.assertEqual(self.services.request("/v1/completions", {**COMPLETION, "prompt": [999999]})[0], 400)
        after = [figure(name) for name in names]
        self.assertEqual([new - old for new, old in zip(after, before)], [3, 3, 21, 9, 24, 3, 3, 0, 1, 24])

    def test_clients_cannot_make_it_grow(self):
        for thread in self.load(4):
            thread.join()
        self.services.request("/nowhere")
        before = {name: family["series"] for text in self.scrape() for name, family in families(text).items()}
        for number in range(100):
            name = f"client-{number}"
            self.services.request(f"/{name}")
            self.services.request(f"/v1/models/{name}")
            self.services.request("/v1/completions", {**COMPLETION, "max_tokens": 1, "user": name},
                                  {"x-request-id": name, "User-Agent": name, "traceparent": f"00-{number + 1:032x}-00f067aa0ba902b7-01"})
            self.services.request("/v1/completions", {**COMPLETION, "model": name})
        after = {name: family["series"] for text in self.scrape() for name, family in families(text).items()}
        self.assertEqual(after, before)
        self.assertLess(max(after.values()), 80)
        self.assertLess(sum(after.values()), 1000)


if __name__ == "__main__":
    unittest.main()
