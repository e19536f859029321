"""The official `openai` package, unmodified, against the running services."""

import asyncio
import json
import os
import socket
import unittest
import urllib.parse

import openai

from services import Services, file_of

MESSAGES = [{"role": "user", "content": "Hello!"}]
LONG = dict(max_tokens=480, temperature=0, extra_body={"ignore_eos": True})


class OpenAITests(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.services = Services()
        cls.addClassCleanup(lambda: cls.assertEqual(cls(), cls.services.stop(), 0))
        cls.client = openai.OpenAI(base_url=cls.services.url + "/v1", api_key="none", max_retries=0)
        cls.addClassCleanup(cls.client.close)
        cls.model = cls.client.models.list().data[0].id
        cls.a = cls.services.json("/tokenize", {"prompt": "A"})["tokens"][0]

    def complete(self, prompt="x", **options):
        return self.client.completions.create(model=self.model, prompt=prompt, **options)

    def chat(self, **options):
        return self.client.chat.completions.create(model=self.model, messages=MESSAGES, **options)

    def only_a(self, **more):
        """Options that make the model say A and nothing else."""
        return {"temperature": 0, "logit_bias": {str(self.a): 100}, **more}

    # Whole answers

    def test_models(self):
        model = self.client.models.retrieve(self.model)
        self.assertEqual((model.id, model.object), (self.model, "model"))
        with self.assertRaises(openai.NotFoundError):
            self.client.models.retrieve("other")

    def test_chat(self):
        answer = self.chat(max_completion_tokens=9, temperature=0, extra_body={"ignore_eos": True})
        choice = answer.choices[0]
        self.assertEqual((answer.object, choice.message.role, choice.finish_reason),
                         ("chat.completion", "assistant", "length"))
        self.assertEqual(answer.usage.completion_tokens, 9)
        self.assertEqual(answer.usage.total_tokens, answer.usage.prompt_tokens + 9)
        self.assertTrue(answer.id.startswith("chatcmpl-"))
        rendered = self.services.json("/tokenize", {"messages": MESSAGES})
        self.assertEqual(answer.usage.prompt_tokens, rendered["count"])

    def test_completion_and_its_prompt_as_ids(self):
        ids = self.services.json("/tokenize", {"prompt": "some words"})["tokens"]
        by_text = self.complete("some words", max_tokens=8, temperature=0)
        by_ids = self.complete(ids, max_tokens=8, temperature=0)
        self.assertEqual(by_text.choices[0].token_ids, by_ids.choices[0].token_ids)
        self.assertEqual(by_text.usage.prompt_tokens, len(ids))
        back = self.services.json("/detokenize", {"tokens": by_text.choices[0].token_ids})
        self.assertEqual(back["text"], by_text.choices[0].text)

    def test_seed_decides(self):
        texts = [self.complete(max_tokens=24, temperature=1, seed=seed).choices[0].token_ids for seed in (7, 7, 8)]
        self.assertEqual(texts[0], texts[1])
        self.assertNotEqual(texts[0], texts[2])

    def test_several_choices_and_prompts(self):
        answer = self.complete(["ab", "cd"], n=3, max_tokens=6, temperature=1, seed=5)
        self.assertEqual([choice.index for choice in answer.choices], list(range(6)))
        alone = self.complete("cd", max_tokens=6, temperature=1, seed=6)
        self.assertEqual(answer.choices[4].token_ids, alone.choices[0].token_ids)
        self.assertEqual(answer.usage.prompt_tokens, 4)
        self.assertEqual(answer.usage.completion_tokens, sum(len(c.token_ids) for c in answer.choices))

    def test_echo(self):
        answer = self.complete("abc", echo=True, max_tokens=3, **self.only_a())
        self.assertEqual(answer.choices[0].text, "abcAAA")

    # Stopping

    def test_logit_bias_and_stop_strings_over_token_boundaries(self):
        self.assertEqual(self.complete(max_tokens=5, **self.only_a()).choices[0].text, "AAAAA")
        stopped = self.complete(max_tokens=50, stop=["AAA"], **self.only_a())
        self.assertEqual((stopped.choices[0].text, stopped.choices[0].finish_reason), ("", "stop"))
        self.assertEqual(stopped.usage.completion_tokens, 3)
        unmet = self.complete(max_tokens=4, stop=["AAAAAA"], **self.only_a())
        self.assertEqual((unmet.choices[0].text, unmet.choices[0].finish_reason), ("AAAA", "length"))

    def test_stop_token_ids(self):
        answer = self.complete(max_tokens=9, extra_body={"stop_token_ids": [self.a]}, **self.only_a())
        self.assertEqual((answer.choices[0].text, answer.choices[0].finish_reason), ("", "stop"))
        self.assertEqual(answer.usage.completion_tokens, 1)

    def test_minimum_of_tokens(self):
        banned = self.complete(
            max_tokens=9, extra_body={"stop_token_ids": [self.a], "min_tokens": 4}, **self.only_a())
        ids = banned.choices[0].token_ids
        self.assertEqual((len(ids), ids[-1], self.a in ids[:-1]), (5, self.a, False))
        unsearched = self.complete(max_tokens=50, stop="AA", extra_body={"min_tokens": 5}, **self.only_a())
        self.assertEqual((unsearched.choices[0].text, unsearched.usage.completion_tokens), ("AAAAA", 7))

    # Streams

    def test_stream_of_completions_equals_the_whole(self):
        options = dict(max_tokens=40, temperature=0, logprobs=2, extra_body={"ignore_eos": True})
        whole = self.complete(**options).choices[0]
        chunks = list(self.complete(stream=True, **options))
        self.assertEqual("".join(c.choices[0].text for c in chunks), whole.text)
        self.assertEqual(sum((c.choices[0].token_ids for c in chunks), []), whole.token_ids)
        logprobs = [c.choices[0].logprobs for c in chunks if c.choices[0].logprobs]
        self.assertEqual(sum((l.token_logprobs for l in logprobs), []), whole.logprobs.token_logprobs)
        self.assertEqual(sum((l.text_offset for l in logprobs), []), whole.logprobs.text_offset)
        self.assertEqual([c.choices[0].finish_reason for c in chunks if c.choices[0].finish_reason], ["length"])
        self.assertTrue(all(c.usage is None for c in chunks))

    def test_stream_of_chat_with_usage(self):
        options = dict(max_tokens=12, temperature=0, extra_body={"ignore_eos": True})
        whole = self.chat(**options)
        chunks = list(self.chat(stream=True, stream_options={"include_usage": True}, **options))
        self.assertEqual(chunks[0].choices[0].delta.role, "assistant")
        self.assertEqual("".join(c.choices[0].delta.content or "" for c in chunks if c.choices),
                         whole.choices[0].message.content)
        self.assertEqual((chunks[-1].choices, chunks[-1].usage), ([], whole.usage))
        self.assertTrue(all(c.usage is None for c in chunks[:-1]))

    def test_usage_in_every_event(self):
        stream = self.complete(max_tokens=5, temperature=0, stream=True, stream_options={
            "include_usage": True, "continuous_usage_stats": True}, extra_body={"ignore_eos": True})
        counts = [c.usage.completion_tokens for c in stream]
        self.assertEqual((counts[:5], set(counts[5:])), ([1, 2, 3, 4, 5], {5}))

    def test_stream_of_several_choices(self):
        parts = {}
        for chunk in self.chat(n=3, max_tokens=8, seed=1, stream=True, extra_body={"ignore_eos": True}):
            choice = chunk.choices[0]
            parts.setdefault(choice.index, []).extend(choice.token_ids)
        whole = self.chat(n=3, max_tokens=8, seed=1, extra_body={"ignore_eos": True})
        self.assertEqual(parts, {c.index: c.token_ids for c in whole.choices})

    def test_bytes_of_the_stream(self):
        status, headers, body = self.services.request(
            "/v1/completions", {"prompt": "x", "max_tokens": 3, "stream": True, "ignore_eos": True})
        self.assertEqual((status, headers.get_content_type()), (200, "text/event-stream"))
        events = body.decode().split("\n\n")
        self.assertEqual(events[-2:], ["data: [DONE]", ""])
        self.assertTrue(all(json.loads(e.removeprefix("data: "))["choices"] for e in events[:-2]))

    # Logprobs

    def test_chat_logprobs(self):
        content = self.chat(max_tokens=6, temperature=0, logprobs=True, top_logprobs=3).choices[0].logprobs.content
        for token in content:
            self.assertEqual(len(token.top_logprobs), 3)
            self.assertEqual(token.top_logprobs[0].logprob, token.logprob)
            self.assertEqual(token.top_logprobs[0].id, token.id)
            if token.bytes is not None and not token.token.startswith("bytes:"):
                self.assertEqual(bytes(token.bytes).decode(), token.token)
            values = [alternative.logprob for alternative in token.top_logprobs]
            self.assertEqual(values, sorted(values, reverse=True))

    def test_completion_logprobs(self):
        choice = self.complete(max_tokens=6, temperature=0, logprobs=2).choices[0]
        logprobs = choice.logprobs
        self.assertEqual(logprobs.token_ids, choice.token_ids)
        for count in (logprobs.tokens, logprobs.token_logprobs, logprobs.top_logprobs, logprobs.text_offset):
            self.assertEqual(len(count), len(choice.token_ids))
        for token, logprob, top in zip(logprobs.tokens, logprobs.token_logprobs, logprobs.top_logprobs):
            self.assertEqual(top[token], logprob)
        self.assertIsNone(self.complete(max_tokens=2).choices[0].logprobs)

    # Errors

    def test_refusals_name_the_field(self):
        for options, field in [
            ({"temperature": -1}, "temperature"), ({"max_tokens": 0}, "max_tokens"), ({"n": 99}, "n"),
            ({"best_of": 3}, "best_of"), ({"suffix": "x"}, "suffix"), ({"logprobs": 99}, "logprobs"),
            ({"extra_body": {"tools": [{}]}}, "tools"), ({"extra_body": {"unheard_of": 1}}, "unheard_of"),
            ({"extra_body": {"stop": 1}}, "stop"), ({"extra_body": {"logit_bias": {"999999": 1}}}, "logit_bias"),
        ]:
            with self.subTest(field), self.assertRaises(openai.BadRequestError) as caught:
                self.complete(**options)
            self.assertIn(field, caught.exception.message)
            self.assertEqual(caught.exception.type, "invalid_request_error")
        for options, field in [
            ({"tools": [{"type": "function", "function": {"name": "f"}}]}, "tools"),
            ({"response_format": {"type": "json_object"}}, "response_format"), ({"top_logprobs": 2}, "top_logprobs"),
        ]:
            with self.subTest(field), self.assertRaises(openai.BadRequestError) as caught:
                self.chat(**options)
            self.assertEqual(caught.exception.param, field)

    def test_types_of_errors(self):
        with self.assertRaises(openai.NotFoundError) as caught:
            self.client.completions.create(model="other", prompt="x")
        self.assertEqual(caught.exception.code, "model_not_found")
        with self.assertRaises(openai.BadRequestError) as caught:
            self.complete("x" * 200_000, stream=True)
        self.assertEqual(caught.exception.code, "context_length_exceeded")
        self.assertTrue(caught.exception.request_id.startswith("req-"))

    def test_timeout_of_the_client_frees_the_server(self):
        with self.assertRaises(openai.APITimeoutError):
            self.client.with_options(timeout=0.02).completions.create(model=self.model, prompt="x", n=8, **LONG)
        self.assertEqual(self.services.wait_for(self.is_idle)["attention0.slots_in_use"], 0)

    def test_timeout_of_the_server(self):
        for stream in (False, True):
            with self.assertRaises(openai.APIError) as caught:
                list(self.complete(n=16, stream=stream, extra_headers={"x-request-timeout": "0.05"}, **LONG))
            if not stream:
                self.assertEqual(caught.exception.status_code, 504)
        self.services.wait_for(self.is_idle)

    def test_cancelling_a_stream_frees_the_server(self):
        with self.complete(stream=True, n=4, **LONG) as stream:
            for _, _ in zip(range(3), stream):
                pass
        self.assertEqual(self.services.wait_for(self.is_idle)["attention0.slots_in_use"], 0)

    def is_idle(self, counters):
        return counters["attention0.slots_in_use"] == 0 and counters["requests"] == 0

    def test_many_at_once(self):
        async def run():
            async with openai.AsyncOpenAI(base_url=self.services.url + "/v1", api_key="none", max_retries=0) as client:
                async def one(index):
                    stream = await client.completions.create(
                        model=self.model, prompt=[index], max_tokens=20, temperature=0, stream=True)
                    return sum([c.choices[0].token_ids async for c in stream], [])
                return await asyncio.gather(*(one(index) for index in range(40)))
        together = asyncio.run(run())
        for index in (0, 39):
            alone = self.complete([index], max_tokens=20, temperature=0).choices[0].token_ids
            self.assertEqual(together[index], alone)

    # Around it

    def test_headers(self):
        _, headers, _ = self.services.request("/v1/models", headers={"X-Request-ID": "mine-1", "Origin": "http://x"})
        self.assertEqual(headers["x-request-id"], "mine-1")
        self.assertIsNone(headers["access-control-allow-origin"])
        status, headers, _ = self.services.request("/v1/completions", method="GET")
        self.assertEqual((status, headers["allow"]), (405, "POST"))
        status, _, _ = self.services.request("/v1/completions", b"x", {"Content-Encoding": "gzip"})
        self.assertEqual(status, 415)
        status, _, _ = self.services.request("/v1/completions", {"prompt": "x"}, {"x-request-timeout": "soon"})
        self.assertEqual(status, 400)

    def test_a_body_without_end_is_refused_and_not_read(self):
        url = urllib.parse.urlparse(self.services.url)
        block, sent = b"a" * (1 << 16), 0
        with socket.create_connection((url.hostname, url.port), 5) as connection:
            connection.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 104857600\r\n\r\n")
            self.assertIn(b"413", connection.recv(4096))
            with self.assertRaises(OSError):
                while sent < 100 << 20:
                    sent += connection.send(block)
        self.assertLess(sent, 64 << 20, "more than is dropped and what the system buffers")

    def test_generate_as_sglang_has_it(self):
        body = {"text": "x", "sampling_params": {"max_new_tokens": 6, "temperature": 0, "ignore_eos": True}}
        whole = self.services.json("/generate", body)
        self.assertEqual(whole["meta_info"]["completion_tokens"], 6)
        self.assertEqual(whole["meta_info"]["finish_reason"], {"type": "length", "length": 6})
        _, _, stream = self.services.request("/generate", {**body, "stream": True, "return_logprob": False})
        events = [json.loads(e[6:]) for e in stream.decode().split("\n\n")[:-2]]
        self.assertEqual(events[-1]["text"], whole["text"])
        self.assertEqual(sorted({e["meta_info"]["completion_tokens"] for e in events}), [1, 2, 3, 4, 5, 6])
        batch = self.services.json("/generate", {"input_ids": [[1], [2]], "sampling_params": {"max_new_tokens": 2}})
        self.assertEqual([len(answer["output_ids"]) for answer in batch], [2, 2])

    def test_a_prompt_that_goes_on_is_not_computed_again(self):
        def cached(prompt, **more):
            usage = self.complete(prompt, max_tokens=2, extra_body={"ignore_eos": True, **more}).usage
            return usage.prompt_tokens_details.cached_tokens

        first = list(range(50, 250))
        self.assertEqual(cached(first), 0)
        self.assertGreaterEqual(cached(first + [5] * 20), 200)
        self.assertEqual(cached(first + [6] * 20, cache_salt="another tenant"), 0)
        status, _, text = self.services.request("/flush_cache", method="POST")
        self.assertEqual((status, text), (200, b"Cache flushed (instances: 1).\n"))
        self.assertEqual(cached(first + [7] * 20), 0)


class GuardedTests(unittest.TestCase):
    """Keys, other origins, and a stop under load."""

    def setUp(self):
        self.keys = file_of("first-key\nsecond-key 1\n")
        self.addCleanup(os.remove, self.keys)
        self.services = Services(
            "--api-keys-file", self.keys, "--cors-origin", "http://page", "--served-model-name", "named")

    def client(self, key):
        client = openai.OpenAI(base_url=self.services.url + "/v1", api_key=key, max_retries=0)
        self.addCleanup(client.close)
        return client

    def test_keys_origins_and_drain(self):
        for key in ("none", "first-ke", "first-key2"):
            with self.assertRaises(openai.AuthenticationError) as caught:
                self.client(key).models.list()
            self.assertEqual(caught.exception.code, "invalid_api_key")
        self.assertEqual(self.services.request("/health")[0], 200)
        self.assertEqual(self.client("first-key").models.list().data[0].id, "named")

        _, headers, _ = self.services.request("/health", headers={"Origin": "http://page"})
        self.assertEqual(headers["access-control-allow-origin"], "http://page")
        _, headers, _ = self.services.request("/health", headers={"Origin": "http://other"})
        self.assertIsNone(headers["access-control-allow-origin"])
        asks = {"Origin": "http://page", "Access-Control-Request-Method": "POST"}
        status, headers, _ = self.services.request("/v1/completions", headers=asks, method="OPTIONS")
        self.assertEqual((status, headers["access-control-allow-methods"]), (204, "POST"))

        stream = self.client("second-key").completions.create(model="named", prompt="x", n=8, stream=True, **LONG)
        ended = {}
        next(stream)
        with self.assertRaises(openai.RateLimitError) as caught:
            self.client("second-key").completions.create(model="named", prompt="x")
        self.assertEqual(caught.exception.response.headers["retry-after"], "1")
        self.services.terminate()
        for chunk in stream:
            choice = chunk.choices[0]
            if choice.finish_reason:
                ended[choice.index] = choice.finish_reason
            if "refused" not in ended and self.services.request("/ready")[0] == 503:
                with self.assertRaises(openai.InternalServerError) as caught:
                    self.client("first-key").completions.create(model="named", prompt="x")
                self.assertEqual(caught.exception.status_code, 503)
                self.assertIn("retry-after", caught.exception.response.headers)
                ended["refused"] = True
        self.assertEqual(ended, {"refused": True, **{index: "length" for index in range(8)}})
        self.assertEqual(self.services.stop(), 0)


if __name__ == "__main__":
    unittest.main()
