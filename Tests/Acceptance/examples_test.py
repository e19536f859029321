"""Every example is run as its first lines say, against the running services."""

import os
import socket
import subprocess
import sys
import unittest

from services import ROOT, Services, demo_model

EXAMPLES = os.path.join(ROOT, "examples")


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


class ExampleTests(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.port = free_port()
        cls.services = Services(model=demo_model(), rpc_port=cls.port)
        cls.addClassCleanup(lambda: cls.assertEqual(cls(), cls.services.stop(), 0))

    def run_example(self, *command):
        result = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=120)
        self.assertEqual((result.returncode, result.stderr), (0, ""), result.stdout)
        return result.stdout

    def test_curl(self):
        text = self.run_example(os.path.join(EXAMPLES, "completions.sh"), self.services.url)
        self.assertGreater(text.count("text_completion"), 3)
        for words in ["data: [DONE]", "chat.completion", "top_logprobs"]:
            self.assertIn(words, text)

    def test_openai(self):
        text = self.run_example(sys.executable, os.path.join(EXAMPLES, "conversation.py"), self.services.url)
        self.assertEqual(text.count(" tokens)"), 2)

    def test_binary(self):
        text = self.run_example(sys.executable, os.path.join(EXAMPLES, "binary.py"), f"127.0.0.1:{self.port}")
        self.assertIn("completion_tokens", text)
        self.assertIn("requests placed by the gateway: 0", text)

    def test_every_example_is_run(self):
        examples = {name for name in os.listdir(EXAMPLES) if name.endswith((".py", ".sh"))}
        self.assertEqual(examples, {"completions.sh", "conversation.py", "binary.py"})


if __name__ == "__main__":
    unittest.main()
