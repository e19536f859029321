"""Who gets in, who waits and where work goes, over HTTP: priority, full queues, lost, frozen and failing instances, prefixes."""

import json
import os
import signal
import threading
import time
import unittest
import urllib.request

from services import GOLDEN, Services, demo_model

COMPLETION = {"prompt": [1, 2, 3], "max_tokens": 8, "temperature": 0, "ignore_eos": True}


class AdmissionTests(unittest.TestCase):
    def start(self, *arguments, model=GOLDEN):
        services = Services(*arguments, "--log-level", "error", model=model)
        self.addCleanup(lambda: self.assertEqual(services.stop(), 0))
        return services

    def occupy(self, services, tokens=2000):
        """A stream that keeps a place until it is closed."""
        body = json.dumps({**COMPLETION, "max_tokens": tokens, "stream": True}).encode()
        stream = urllib.request.urlopen(urllib.request.Request(services.url + "/v1/completions", body), timeout=60)
        self.addCleanup(stream.close)
        stream.readline()
        return stream

    def test_priority_decides_who_is_next(self):
        services = self.start("--slots", "1", model=demo_model())
        stream = self.occupy(services)
        order, threads = [], []

        def ask(name, path, body):
            status = services.request(path, body)[0]
            order.append((name, status))

        generate = {"input_ids": [1, 2, 3], "sampling_params": {"max_new_tokens": 8, "temperature": 0, "ignore_eos": True}}
        for name, path, body in [
            ("late", "/v1/completions", {**COMPLETION, "priority": 5}),
            ("first of those who say nothing", "/v1/completions", COMPLETION),
            ("second of those who say nothing", "/generate", generate),
            ("vLLM's -20", "/v1/completions", {**COMPLETION, "priority": -20}),
            ("SGLang's 50", "/generate", {**generate, "priority": 50}),
            ("SGLang's -50", "/generate", {**generate, "priority": -50}),
        ]:
            threads.append(threading.Thread(target=ask, args=(name, path, body)))
            threads[-1].start()
            waiting = services.wait_for(lambda counters: counters["requests_queued"] >= len(threads))
            self.assertEqual(waiting["requests_queued"], len(threads))
        stream.close()
        for thread in threads:
            thread.join()
        self.assertEqual([name for name, _ in order], [
            "SGLang's 50", "vLLM's -20", "first of those who say nothing", "second of those who say nothing", "late",
            "SGLang's -50"])
        self.assertEqual({status for _, status in order}, {200})

    def test_a_full_queue_says_when_to_come_back_and_serves_those_in_it(self):
        services = self.start("--slots", "1", model=demo_model())
        stream = self.occupy(services)
        answers, threads = [], []

        def ask():
            status, headers, body = services.request("/v1/completions", {**COMPLETION, "max_tokens": 1})
            answers.append((status, headers["retry-after"], json.loads(body)))

        for _ in range(140):
            threads.append(threading.Thread(target=ask))
            threads[-1].start()
        services.wait_for(lambda counters: counters["requests_queued"] == 128 and len(answers) == 12)
        self.assertEqual([(status, retry) for status, retry, _ in answers], [(429, "1")] * 12)
        self.assertIn("128", answers[0][2]["error"]["message"])
        self.assertEqual(answers[0][2]["error"]["code"], "rate_limit_exceeded")
        stream.close()
        for thread in threads:
            thread.join()
        self.assertEqual(sorted(status for status, _, _ in answers), [200] * 128 + [429] * 12)

    def test_a_request_whose_instance_is_killed_goes_on_elsewhere(self):
        services = self.start("--attention", "2", "--metrics-port", "0")
        long = {**COMPLETION, "max_tokens": 400}
        wanted = services.json("/v1/completions", long)["choices"][0]["token_ids"]
        results = []
        threads = [threading.Thread(target=lambda: results.append(services.json("/v1/completions", long)))
                   for _ in range(6)]
        for thread in threads:
            thread.start()
        services.wait_for(lambda counters: counters["instance1.placed_requests"] >= 2
                          and counters.get("attention1.rows", 0) > 40)
        os.kill(services.children("attention")[1], signal.SIGKILL)
        for thread in threads:
            thread.join()
        self.assertEqual([result["choices"][0]["token_ids"] for result in results], [wanted] * 6)
        text = services.request("/metrics")[2].decode()
        restarts = next(line for line in text.splitlines() if line.startswith("ironling_request_restarts_total "))
        self.assertGreaterEqual(float(restarts.split()[1]), 2)
        back = services.wait_for(lambda counters: counters["instance1.up"] == 1 and counters.get("attention1.slots"))
        self.assertEqual(back["instance1.up"], 1)

    def test_the_breaker_keeps_requests_from_an_instance_that_fails_again_and_again(self):
        services = self.start("--attention", "2")
        second = services.children("attention")[1]
        self.addCleanup(os.kill, second, signal.SIGCONT)

        def up(value):
            counters = services.wait_for(lambda counters: counters["instance1.up"] == value)
            self.assertEqual(counters["instance1.up"], value)
            return counters

        for failure in range(1, 4):
            os.kill(second, signal.SIGSTOP)
            counters = up(0)
            self.assertEqual(counters["instance1.breaker_state"], 2 if failure == 3 else 0)
            begun = time.monotonic()
            if failure == 1:
                self.assertEqual(services.request("/v1/completions", COMPLETION)[0], 200)
                self.assertLess(time.monotonic() - begun, 5)
            os.kill(second, signal.SIGCONT)
            up(1)
        before = services.counters()
        self.assertEqual(before["instance1.breaker_state"], 2)
        threads = [threading.Thread(target=services.request, args=("/v1/completions", COMPLETION)) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        after = services.counters()
        self.assertEqual(after["attention1.rows"], before["attention1.rows"])
        self.assertGreater(after["attention0.rows"], before["attention0.rows"])
        end = time.monotonic() + 20
        while services.counters()["instance1.breaker_state"] != 0 and time.monotonic() < end:
            self.assertEqual(services.request("/v1/completions", COMPLETION)[0], 200)
        counters = services.counters()
        self.assertEqual(counters["instance1.breaker_state"], 0)
        self.assertGreater(counters["attention1.rows"], before["attention1.rows"])

    def test_prompts_with_a_known_prefix_go_where_it_was_computed(self):
        services = self.start("--attention", "2", "--placement", "prefix-affine")
        prefixes = [[1 + number] * 128 for number in range(2)]

        def rows():
            counters = services.counters()
            return [counters["attention0.rows"], counters["attention1.rows"]]

        homes = []
        for prefix in prefixes:
            before = rows()
            services.request("/v1/completions", {**COMPLETION, "prompt": prefix + [7], "max_tokens": 1})
            homes.append([new - old > 0 for new, old in zip(rows(), before)].index(True))
        self.assertEqual(sorted(homes), [0, 1])
        for round in range(6):
            for prefix, home in zip(prefixes, homes):
                before = rows()
                services.request("/v1/completions", {**COMPLETION, "prompt": prefix + [8 + round], "max_tokens": 1})
                grown = [new - old for new, old in zip(rows(), before)]
                self.assertEqual(grown[1 - home], 0, (round, home))
                self.assertGreater(grown[home], 0)


if __name__ == "__main__":
    unittest.main()
