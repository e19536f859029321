"""Round trips, refusals, golden frames and a scripted server for ironling_client."""

import os
import random
import socket
import struct
import tempfile
import threading
import unittest
import zlib

import ironling_client as wire

FRAMES = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "frames")
EXAMPLE_STATUS = bytes.fromhex(
    "49524e4c020340000500020000000000" "01000000000000008096980000000000"
    "00000000000000000000000000000000" "0000000000000000000000004207875a")
OTHER_VERSION = ("a frame of protocol version 1 came to a side that speaks version 2: "
                 "both sides must have the same version, so update the older one")


def reader(data):
    position = 0

    def read(count):
        nonlocal position
        position += count
        if position > len(data):
            raise EOFError
        return data[position - count:position]

    return read


class HeaderTest(unittest.TestCase):
    def test_example_of_the_specification(self):
        self.assertEqual(wire.Frame(wire.REQUEST, 1, wire.STATUS, deadline=10_000_000).encoded(), EXAMPLE_STATUS)

    def test_round_trip(self):
        frame = wire.Frame(wire.ITEM, 2**63, 7, wire.PAYLOAD_CHECKSUM | wire.MORE, b"meta", b"body", 9, 5, (1, 2))
        back = wire.read_frame(reader(frame.encoded()))
        self.assertEqual(vars(back), vars(frame))

    def test_every_flipped_byte_is_refused(self):
        data = wire.Frame(wire.CREDIT, 3, metadata=wire.number(1, "I", 4)).encoded()
        for index in range(len(data)):
            broken = bytearray(data)
            broken[index] ^= 0xFF
            with self.assertRaises((wire.ProtocolError, EOFError), msg=f"byte {index}"):
                wire.read_frame(reader(bytes(broken)))

    def test_rules_behind_a_good_checksum(self):
        for offset, form, value in [(4, "B", 1), (4, "B", 3), (5, "B", 0), (5, "B", 13), (6, "H", 65), (10, "H", 6),
                                    (48, "I", wire.METADATA_LIMIT + 1), (52, "I", 1), (56, "I", 1)]:
            head = bytearray(EXAMPLE_STATUS[:60])
            if offset == 56:
                struct.pack_into("<H", head, 10, 0)
            struct.pack_into("<" + form, head, offset, value)
            head += struct.pack("<I", zlib.crc32(head))
            with self.assertRaises(wire.ProtocolError, msg=f"offset {offset}"):
                wire.decode_header(bytes(head))


class FieldsTest(unittest.TestCase):
    def test_round_trip(self):
        data = wire.number(1, "Q", 2**64 - 1) + wire.numbers(2, "I", [1, 2]) + wire.texts(3, ["ä", ""])
        fields = wire.Fields(data + wire.field(500, b"skipped"), range(1, 4))
        self.assertEqual(fields.number(1, "Q", "a"), 2**64 - 1)
        self.assertEqual(fields.numbers(2, "I", "b"), [1, 2])
        self.assertEqual(fields.texts(3, "c"), ["ä", ""])

    def test_refusals(self):
        for data in [b"\1", wire.field(1, b"x")[:-1], wire.field(1, b"") * 2, wire.field(0x8009, b""),
                     b"".join(wire.field(tag, b"") for tag in range(65))]:
            with self.assertRaises(wire.ProtocolError):
                wire.Fields(data, range(1, 4))

    def test_noise_is_refused_or_read(self):
        generator = random.Random(1)
        for _ in range(2000):
            data = generator.randbytes(generator.randrange(40))
            for decode in (wire.decode_item, wire.decode_end, wire.decode_status, wire.decode_failure):
                try:
                    decode(data)
                except wire.ProtocolError:
                    pass


class GoldenFramesTest(unittest.TestCase):
    def test_every_golden_frame(self):
        names = sorted(name for name in os.listdir(FRAMES) if name.endswith(".bin")) if os.path.isdir(FRAMES) else []
        for name in names:
            with self.subTest(name), open(os.path.join(FRAMES, name), "rb") as file:
                data = file.read()
                frame = wire.read_frame(reader(data))
                self.assertEqual(frame.encoded(), data)

    def test_generate_request(self):
        path = os.path.join(FRAMES, "generate-request.bin")
        if not os.path.exists(path):
            self.skipTest("no golden frames")
        with open(path, "rb") as file:
            golden = file.read()
        metadata = wire.encode_generate(
            prompt_ids=[1, 2, 3], max_tokens=4, temperature=0.5, seed=42, logprobs=2, stop=["\n\n", "ende"],
            stop_token_ids=[9], model="ling", ignore_eos=True)
        self.assertEqual(
            wire.Frame(wire.REQUEST, 2, wire.GENERATE, metadata=metadata, deadline=60_000_000).encoded(), golden)


class ConversationTest(unittest.TestCase):
    """A server that follows the specification on the other end of a real socket."""

    def serve(self, answer, secret=b"secret"):
        listener = socket.create_server(("127.0.0.1", 0))
        self.addCleanup(listener.close)
        self.received = []

        def run():
            connection, _ = listener.accept()
            with connection, connection.makefile("rb") as file:
                nonce = bytes(range(32))
                challenge = wire.Fields(wire.read_frame(file.read).metadata, range(1, 10)).bytes(8)
                proof = wire.proof(secret, b"server", challenge, nonce)
                hello = wire.encode_hello(nonce) + wire.field(9, proof)
                connection.sendall(wire.Frame(wire.HELLO, metadata=hello).encoded())
                try:
                    answered = wire.Fields(wire.read_frame(file.read).metadata, range(1, 2)).bytes(1)
                    self.received.append(answered == wire.proof(secret, b"client", nonce, challenge))
                    request = wire.read_frame(file.read)
                    for frame in answer(request):
                        connection.sendall(frame.encoded())
                    self.received.append(wire.read_frame(file.read).kind)
                except (wire.ProtocolError, OSError):
                    pass

        thread = threading.Thread(target=run)
        thread.start()
        self.addCleanup(thread.join)
        return listener.getsockname()[1]

    def test_generate(self):
        def answer(request):
            item = wire.field(1, b"hi") + wire.field(2, struct.pack("<If", 7, -0.5))
            end = wire.number(1, "B", 2) + wire.number(2, "I", 3) + wire.number(3, "I", 1)
            yield wire.Frame(wire.PING)
            yield wire.Frame(wire.ITEM, request.request_id, metadata=item)
            yield wire.Frame(wire.END, request.request_id, metadata=end)

        with wire.IronlingClient("127.0.0.1", self.serve(answer), b"secret", 10) as client:
            items = list(client.generate(prompt="x"))
        self.assertEqual(items, [{"text": "hi", "tokens": [(7, -0.5)], "top": []}])
        self.assertEqual(client.end, {"finish_reason": "length", "prompt_tokens": 3, "completion_tokens": 1})

    def test_error(self):
        failure = wire.number(1, "H", 1) + wire.field(2, b"later")
        port = self.serve(lambda request: [wire.Frame(wire.ERROR, request.request_id, metadata=failure)])
        with wire.IronlingClient("127.0.0.1", port, b"secret", 10) as client:
            with self.assertRaises(wire.CallError) as caught:
                client.status()
        self.assertEqual((caught.exception.code, str(caught.exception)), (1, "notAccepted: later"))

    def test_wrong_secret(self):
        with self.assertRaises(wire.CallError) as caught:
            wire.IronlingClient("127.0.0.1", self.serve(lambda request: []), b"other", 10)
        self.assertEqual(caught.exception.code, 6)

    def older(self, frame):
        """The frame as a peer of version 1 sends it."""
        data = bytearray(frame.encoded())
        data[4] = 1
        struct.pack_into("<I", data, 60, zlib.crc32(data[:60]))
        return bytes(data)

    def test_a_server_of_another_version_is_refused_with_what_to_do(self):
        listener = socket.create_server(("127.0.0.1", 0))
        self.addCleanup(listener.close)
        failure = wire.number(1, "H", 2) + wire.field(2, b"protocol version is 2, this peer speaks 1")

        def run():
            connection, _ = listener.accept()
            with connection, connection.makefile("rb") as file:
                self.assertEqual(file.read(64)[4], 2)
                connection.sendall(self.older(wire.Frame(wire.ERROR, metadata=failure)))
                file.read()

        thread = threading.Thread(target=run)
        thread.start()
        self.addCleanup(thread.join)
        with self.assertRaises(wire.ProtocolError) as caught:
            wire.IronlingClient("127.0.0.1", listener.getsockname()[1], b"secret", 10)
        self.assertEqual(str(caught.exception), OTHER_VERSION)

    def test_a_client_of_another_version_is_refused_with_what_to_do(self):
        hello = self.older(wire.Frame(wire.HELLO, metadata=wire.encode_hello(bytes(32))))
        with self.assertRaises(wire.ProtocolError) as caught:
            wire.read_frame(reader(hello))
        self.assertEqual(str(caught.exception), OTHER_VERSION)

    def test_a_line_end_is_no_part_of_a_secret(self):
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "secret")
            for content in [b"secret", b"secret\n", b"secret\r\n", b"secret\n\n"]:
                with open(path, "wb") as file:
                    file.write(content)
                self.assertEqual(wire.read_secret(path), b"secret")
            for content in [b"", b"\n", b"\r\n"]:
                with open(path, "wb") as file:
                    file.write(content)
                with self.assertRaises(ValueError):
                    wire.read_secret(path)


if __name__ == "__main__":
    unittest.main()
