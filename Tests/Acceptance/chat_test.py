"""ironling chat at a terminal, which a pseudo-terminal stands for."""

import os
import pty
import re
import select
import signal
import subprocess
import tempfile
import time
import unittest

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
IRONLING = os.path.join(ROOT, ".build", "release", "ironling")
MODEL = os.path.join(ROOT, "Tests", "Fixtures", "golden", "base")


class Terminal:
    """The command at a terminal of its own."""

    def __init__(self, state, *extra):
        environment = dict(os.environ, XDG_STATE_HOME=state, TERM="xterm", LC_ALL="C.UTF-8")
        self.process_id, self.descriptor = pty.fork()
        if self.process_id == 0:
            os.execve(IRONLING, [IRONLING, "chat", MODEL, "--byte-tokenizer", "--temperature", "0", *extra], environment)
        self.text = ""

    def read_until(self, pattern, seconds=30):
        """What is shown up to and with the pattern; the rest is kept."""
        end = time.monotonic() + seconds
        while True:
            found = re.search(pattern, self.text, re.S)
            if found:
                shown, self.text = self.text[: found.end()], self.text[found.end() :]
                return shown
            ready, _, _ = select.select([self.descriptor], [], [], max(0, end - time.monotonic()))
            if not ready:
                raise AssertionError(f"{pattern!r} was not shown: {self.text!r}")
            try:
                data = os.read(self.descriptor, 65536)
            except OSError:
                data = b""
            if not data:
                raise AssertionError(f"it ended before {pattern!r} was shown: {self.text!r}")
            self.text += data.decode("utf-8", "replace")

    def type(self, keys):
        os.write(self.descriptor, keys.encode())

    def status(self, seconds=15):
        """The exit status; what it still shows is dropped."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            ready, _, _ = select.select([self.descriptor], [], [], 0.05)
            try:
                if ready:
                    os.read(self.descriptor, 65536)
            except OSError:
                pass
            ended, status = os.waitpid(self.process_id, os.WNOHANG)
            if ended:
                os.close(self.descriptor)
                return os.waitstatus_to_exitcode(status)
        os.kill(self.process_id, signal.SIGKILL)
        os.waitpid(self.process_id, 0)
        os.close(self.descriptor)
        raise AssertionError("it did not end")


class ChatTest(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.addCleanup(self.folder.cleanup)

    def chat(self, *extra):
        return Terminal(self.folder.name, *extra)

    def test_an_answer_is_measured_and_lines_are_remembered(self):
        terminal = self.chat("--max-tokens", "8")
        terminal.read_until("> ")
        terminal.type("Grüße\r")
        self.assertIn("tokens/s", terminal.read_until(r"\[8 tokens.*\]"))
        terminal.read_until("> ")
        terminal.type("\x1b[A")
        terminal.read_until("Grüße")
        terminal.type("\x01/reset \x0b\r")
        terminal.read_until("> ")
        terminal.type("/quit\r")
        self.assertEqual(terminal.status(), 0)
        history = os.path.join(self.folder.name, "ironling", "history")
        self.assertEqual(os.stat(history).st_mode & 0o077, 0)
        terminal = self.chat("--max-tokens", "8")
        terminal.read_until("> ")
        terminal.type("\x1b[A\x1b[A\x1b[A")
        terminal.read_until("Grüße")
        terminal.type("\x03")
        terminal.read_until("> ")
        terminal.type("\x04")
        self.assertEqual(terminal.status(), 0)

    def test_an_interrupt_stops_the_answer_and_not_the_program(self):
        terminal = self.chat("--max-tokens", "400")
        terminal.read_until("> ")
        terminal.type("Hi\r")
        time.sleep(0.1)
        terminal.type("\x03")
        shown = terminal.read_until(r"\[\d+ tokens.*?\]")
        terminal.read_until("> ")
        if "stopped" not in shown:  # the answer was faster, and the prompt was interrupted
            terminal.read_until("> ")
        terminal.type("/help\r")
        terminal.read_until("/system")
        terminal.read_until("> ")
        terminal.type("/quit\r")
        self.assertEqual(terminal.status(), 0)
        self.assertTrue("stopped" in shown or "[400 tokens" in shown, shown)

    def test_an_interrupt_clears_the_line_and_two_end(self):
        terminal = self.chat("--max-tokens", "4")
        terminal.read_until("> ")
        terminal.type("half a line")
        terminal.read_until("half a line")
        terminal.type("\x03")
        terminal.read_until("> ")
        terminal.type("\x03")
        terminal.read_until("Ctrl-C again")
        terminal.read_until("> ")
        terminal.type("\x03")
        self.assertEqual(terminal.status(), 0)

    def test_commands_are_carried_out(self):
        terminal = self.chat("--max-tokens", "4")
        saved = os.path.join(self.folder.name, "saved.json")
        terminal.read_until("> ")
        for keys, shown in [
            ("/system", "no instructions"), ("/system Be brief.", "> "), ("/system", "Be brief."),
            ("/hlep", "did you mean /help"), ("/save", "name of a file"), (f"/save {saved}", "> "),
        ]:
            terminal.type(keys + "\r")
            terminal.read_until(shown)
        terminal.read_until("> ")
        terminal.type("\x04")
        self.assertEqual(terminal.status(), 0)
        with open(saved, encoding="utf-8") as file:
            self.assertIn("Be brief.", file.read())

    def test_a_prompt_comes_from_standard_input(self):
        command = [IRONLING, "generate", MODEL, "--byte-tokenizer", "--max-tokens", "4", "--temperature", "0"]
        wanted = subprocess.run([*command, "--prompt", "It is"], capture_output=True, check=True).stdout
        for extra, typed in [([], b"It is\n"), (["--prompt", "-"], b"It is"), ([], b"It is\r\n")]:
            run = subprocess.run([*command, *extra], input=typed, capture_output=True, check=True)
            self.assertEqual(run.stdout, wanted)
        for typed in [b"", b"\n", b"\xff"]:
            run = subprocess.run(command, input=typed, capture_output=True)
            self.assertEqual(run.returncode, 64, run.stderr)


if __name__ == "__main__":
    unittest.main()
