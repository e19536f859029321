"""`ironling trace`, its files as Perfetto's trace_processor reads them, and the trace context on its way through the services."""

import json
import os
import re
import tempfile
import threading
import time
import unittest
import urllib.error
import urllib.request
import xml.etree.ElementTree as ElementTree

from services import GOLDEN, Services, demo_model
from trace_processor import TraceProcessor

SLICES = """
    select s.id, s.name, s.ts, s.dur, s.depth, p.name as process, t.name as thread
    from slice s join thread_track on s.track_id = thread_track.id join thread t using (utid) join process p using (upid)
"""


def spans(processor, where):
    """Spans with the names of all around them."""
    return processor.query(f"""
        select s.*, coalesce((select group_concat(name, ' < ') from ancestor_slice(s.id)), '') as around
        from ({SLICES}) s where {where} order by s.ts""")


def problems(processor):
    """What trace_processor did not understand."""
    return processor.query("select name, value from stats where severity in ('error', 'data_loss') and value > 0")


class TraceTests(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(cls.folder.cleanup)
        cls.model = demo_model()
        with open(os.path.join(cls.model, "config.json")) as file:
            config = json.load(file)
        cls.layers = range(config["num_hidden_layers"])
        cls.dense = config["first_k_dense_replace"]
        cls.log = open(os.path.join(cls.folder.name, "log"), "w+")
        cls.addClassCleanup(cls.log.close)
        cls.services = Services("--metrics-port", "0", "--log-level", "debug", model=cls.model, log=cls.log)
        cls.addClassCleanup(lambda: cls.assertEqual(cls(), cls.services.stop(), 0))

    def trace(self, *arguments):
        """Runs `ironling trace`; returns its summary and the loaded file."""
        path = os.path.join(self.folder.name, "trace.json")
        status, text = self.services.ironling(
            "trace", "--services", ",".join(self.services.metrics), "--output", path, "--json", *arguments)
        self.assertEqual(status, 0, text)
        return json.loads(text), TraceProcessor(path)

    def complete(self, trace=None, flags="01", tokens=8, **headers):
        """A completion; returns the headers of its answer."""
        if trace:
            headers["traceparent"] = f"00-{trace}-00f067aa0ba902b7-{flags}"
        body = {"prompt": [1, 2, 3], "max_tokens": tokens, "temperature": 0, "ignore_eos": True}
        status, answer, text = self.services.request("/v1/completions", body, headers)
        self.assertEqual(status, 200, text)
        return answer

    def operations(self, index, path):
        """Status and JSON of what one service answers on its metrics port."""
        try:
            with urllib.request.urlopen(f"http://{self.services.metrics[index]}{path}", timeout=60) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as error:
            with error:
                return error.code, json.load(error)

    def check_layers(self, processor, steps, process="request %"):
        """Every layer's attention and experts spans lie within the request, as often as there were steps."""
        for layer in self.layers:
            found = spans(processor, f"process like '{process}' and name = 'attention layer {layer}'")
            self.assertEqual(len(found), steps, f"layer {layer}")
            for span in found:
                self.assertRegex(span["around"], r"^request < answering < completion < .*< step \d+$")
            found = spans(processor, f"process like '{process}' and name = 'experts layer {layer}'")
            self.assertEqual(len(found), steps if layer >= self.dense else 0, f"layer {layer}")
            for span in found:
                self.assertRegex(span["around"], r"^request < answering < completion < .*< step \d+$")

    # One request

    def test_each_layer_and_its_experts_nest_under_the_request(self):
        summary, processor = self.trace("--base-url", self.services.url, "--prompt-ids", "1,2,3,4,5", "--max-tokens", "6")
        self.assertEqual(problems(processor), [])
        self.check_layers(processor, 6)
        computed = spans(processor, "process like 'request %' and name glob 'compute*'")
        self.assertEqual(len(computed), 6 * (len(self.layers) - self.dense + 1))
        for span in computed:
            self.assertRegex(span["around"], r"< (experts layer \d+ < call layer \d+|sampler < call)$")
        phases = [span["name"] for span in spans(
            processor, "process like 'request %' and name in ('tokenizing', 'queued', 'prefill', 'decode')")]
        self.assertEqual(phases[-2:], ["prefill", "decode"])
        self.assertTrue({"tokenizing", "queued"} <= set(phases))
        self.assertEqual(len(summary["trace"]), 32)
        self.assertEqual({item["instance"].split("-")[0] for item in summary["services"]},
                         {"gateway", "attention", "experts", "sampler"})

    def test_the_same_request_is_found_by_its_trace_id(self):
        trace = "4bf92f3577b34da6a3ce929d0e0e4736"
        self.complete(trace, tokens=5)
        summary, processor = self.trace("--id", trace)
        self.assertEqual(summary["trace"], trace)
        self.check_layers(processor, 5)

    def test_requests_that_share_their_steps_each_have_all_of_them(self):
        traces = [f"{number:032x}" for number in range(0xABC1, 0xABC5)]
        threads = [threading.Thread(target=self.complete, args=(trace,), kwargs={"tokens": 24}) for trace in traces]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for trace in traces:
            self.check_layers(self.trace("--id", trace)[1], 24)

    def test_a_hand_off_nests_too(self):
        path = os.path.join(self.folder.name, "handoff.json")
        plot = os.path.join(self.folder.name, "handoff.svg")
        status, text = self.services.ironling(
            "trace", "--model", GOLDEN, "--byte-tokenizer", "--prefill", "1", "--decode", "1", "--experts", "2",
            "--prompt", "It is a truth universally acknowledged", "--max-tokens", "4", "--output", path, "--plot", plot)
        self.assertEqual(status, 0, text)
        processor = TraceProcessor(path)
        self.assertEqual(problems(processor), [])
        received = spans(processor, "process like 'request %' and name glob 'attention layer *' "
                                    "and around like '%receiving state < completion < prefill < step%'")
        decoded = spans(processor, "process like 'request %' and name glob 'attention layer *' "
                                   "and around like '%completion < decode < step%'")
        self.assertGreater(len(received), 0)
        self.assertEqual(len(decoded), 3 * len(received))
        instances = processor.query("select distinct name from process where name glob '* (experts-*)'")
        self.assertEqual(len(instances), 2)
        arrows = processor.query(f"""
            with s as ({SLICES}) select caller.name as caller, answer.name as answer from flow
            join s caller on caller.id = slice_out join s answer on answer.id = slice_in""")
        answers = spans(processor, "thread glob 'calls *' and name glob 'call*'")
        self.assertEqual(len(arrows), len(answers))
        for arrow in arrows:
            # An answer begins with its reading: the arrow ends at the innermost of the two.
            self.assertRegex(arrow["answer"], r"^(call|read)\b")
            self.assertEqual(arrow["caller"].removeprefix("experts") if " " in arrow["caller"] else "",
                             re.sub(r"^(call|read)", "", arrow["answer"]))
        lanes = {text.text for text in ElementTree.parse(plot).iter("{http://www.w3.org/2000/svg}text")}
        for name in [process["name"] for process in instances]:
            self.assertIn(name.split("(")[1].rstrip(")"), lanes)
        self.assertLess({"receiving state", "handing off state", "decode", "layer loop"}, lanes)

    def test_a_request_without_the_flag_leaves_no_spans(self):
        trace = "00000000000000000000000000abcdef"
        self.complete(trace, flags="00")
        status, text = self.services.ironling(
            "trace", "--services", ",".join(self.services.metrics), "--id", trace, "--output", "/dev/null")
        self.assertEqual(status, 1)
        self.assertIn("sampled flag", text)

    # A window

    def test_a_window_holds_everything_that_happened(self):
        over = threading.Event()

        def work():
            while not over.is_set():
                self.complete(tokens=16)

        threads = [threading.Thread(target=work) for _ in range(3)]
        for thread in threads:
            thread.start()
        try:
            summary, processor = self.trace("--seconds", "0.5")
        finally:
            over.set()
            for thread in threads:
                thread.join()
        self.assertIsNone(summary["trace"])
        self.assertEqual(problems(processor), [])
        steps = spans(processor, "process glob 'attention*' and thread = 'layer loop' and name glob 'step *'")
        self.assertGreater(len(steps), 20)
        self.assertEqual({step["depth"] for step in steps}, {0})
        layers = spans(processor, "process glob 'attention*' and name = 'experts layer 1' and depth = 1")
        self.assertGreaterEqual(len(layers) + 2, len(steps))
        answered = spans(processor, "process glob 'gateway*' and name = 'completion'")
        self.assertGreater(len(answered), 3)
        status, again = self.operations(0, "/trace?id=00000000000000000000000000000001")
        recorded = again["recorded"]
        self.complete()
        self.assertEqual(self.operations(0, "/trace?id=00000000000000000000000000000001")[1]["recorded"], recorded)

    def test_time_on_the_simulated_device_has_a_clock_of_its_own(self):
        end = time.monotonic() + 60
        while True:
            processor = self.trace("--base-url", self.services.url, "--prompt-ids", "1,2", "--max-tokens", "8")[1]
            device = spans(processor, "process like 'experts % simulated clock' and thread = 'device'")
            if len(device) >= 8 or time.monotonic() > end:
                break
            for _ in range(10):
                self.complete(tokens=64)
        self.assertGreaterEqual(len(device), 8)
        self.assertEqual(device[0]["ts"] - min(span["ts"] for span in device), 0)
        for span, following in zip(device, device[1:]):
            self.assertAlmostEqual(span["ts"] + span["dur"], following["ts"], delta=2)
        wall = spans(processor, "process glob 'experts (*)' and name glob 'call *'")
        self.assertGreater(sum(span["dur"] for span in wall), 5 * sum(span["dur"] for span in device) / len(device))

    # Limits

    def test_what_cannot_be_asked_for_is_refused_with_the_limit(self):
        for query, word in [("id=xyz", "hexadecimal"), ("id=" + "0" * 32, "hexadecimal"), ("seconds=31", "30"),
                            ("seconds=nan", "30"), ("id=", "hexadecimal"), ("what=1", "id="),
                            ("id=" + ",".join(f"{n:032x}" for n in range(1, 20)), "16"),
                            ("seconds=1&id=" + "1" * 32, "exclude")]:
            status, answer = self.operations(0, "/trace?" + query)
            self.assertEqual(status, 400, query)
            self.assertRegex(answer["error"]["message"], word)
        for arguments, word in [(["--seconds", "1", "--id", "1" * 32], "one of"), (["--prompt", "x"], "base-url"),
                                (["--id", "nonsense"], "hexadecimal"), (["--seconds", "99"], "30")]:
            status, text = self.services.ironling("trace", "--services", self.services.metrics[0], *arguments)
            self.assertEqual(status, 64, text)
            self.assertIn(word, text)
        status, text = self.services.ironling("trace", "--services", "127.0.0.1:1", "--seconds", "1")
        self.assertEqual(status, 1)
        self.assertIn("127.0.0.1:1", text)

    # Trace context and logs

    def test_the_trace_context_is_answered_and_made_up_where_there_is_none(self):
        trace = "0af7651916cd43dd8448eb211c80319c"
        for flags in ("00", "01"):
            parent = self.complete(trace, flags, tokens=1)["traceparent"]
            self.assertRegex(parent, f"^00-{trace}-[0-9a-f]{{16}}-{flags}$")
            self.assertNotIn("00f067aa0ba902b7", parent)
        made = {self.complete(tokens=1)["traceparent"] for _ in range(3)}
        self.assertEqual(len({parent.split("-")[1] for parent in made}), 3)
        for wrong in ("garbage", "00-" + "0" * 32 + "-00f067aa0ba902b7-01", "ff-" + trace + "-00f067aa0ba902b7-01"):
            answer = self.complete(tokens=1, traceparent=wrong)
            self.assertRegex(answer["traceparent"], "^00-[0-9a-f]{32}-[0-9a-f]{16}-00$")
            self.assertNotIn(trace, answer["traceparent"])

    def test_logs_of_all_services_name_the_same_request(self):
        trace = "5bd66ef5095369c7b0d1f8f4bd33716a"
        self.complete(trace, tokens=3, **{"x-request-id": "order-66"})
        wanted = {"gateway": 1, "attention": 1, "experts": 3 * (len(self.layers) - self.dense), "sampler": 3}
        end = time.monotonic() + 10
        while True:
            with open(self.log.name) as file:
                lines = [line for line in file if f"trace={trace}" in line]
            services = [line.split()[2] for line in lines]
            if {name: services.count(name) for name in wanted} == wanted or time.monotonic() > end:
                break
            time.sleep(0.02)
        self.assertEqual({name: services.count(name) for name in wanted}, wanted)
        gateway = next(line for line in lines if line.split()[2] == "gateway")
        for part in ("request=order-66", "status=200", "path=/v1/completions", "info gateway"):
            self.assertIn(part, gateway)
        attention = next(line for line in lines if line.split()[2] == "attention")
        self.assertIn("prompt_tokens=3 tokens=3", attention)
        self.assertTrue(all(re.match(r"^\d{4}-\d\d-\d\dT[\d:.]+Z (info|debug) ", line) for line in lines))

    # Requests at work

    def test_a_request_at_work_is_listed_with_its_phase(self):
        thread = threading.Thread(target=self.complete, kwargs={"tokens": 1500, "x-request-id": "long-one"})
        thread.start()
        try:
            end = time.monotonic() + 20
            found = {}
            while time.monotonic() < end and found.get("phase") != "streaming":
                listed = self.operations(-1, "/debug/requests")[1]["requests"]
                found = next((item for item in listed if item["request"] == "long-one" and item["tokens"] > 0), {})
            self.assertEqual(found["phase"], "streaming")
            self.assertEqual(found["prompt_tokens"], 3)
            self.assertGreaterEqual(found["age_seconds"], found["phase_seconds"])
            self.assertTrue(found["instance"].startswith("127.0.0.1:"))
            self.assertIn("queued", [phase["phase"] for phase in found["past"]])
            status, report = self.operations(-2, "/debug/requests")
            self.assertEqual((status, report["service"]), (200, "attention"))
            self.assertIn(("decode", found["trace"]), [(item["phase"], item["trace"]) for item in report["requests"]])
            status, text = self.services.ironling("requests", "--services", ",".join(self.services.metrics))
            self.assertEqual(status, 0, text)
            self.assertRegex(text, r"streaming .*long-one")
        finally:
            thread.join()
        self.assertEqual(self.operations(-1, "/debug/requests")[1]["count"], 0)


if __name__ == "__main__":
    unittest.main()
