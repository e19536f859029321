#!/usr/bin/env python3
"""A client of the Ironling binary protocol, written from SPECIFICATION.md with the standard library alone."""

import argparse
import hashlib
import hmac
import json
import os
import socket
import struct
import sys
import time
import zlib

MAGIC = 0x4C4E5249
VERSION = 2
HEADER = struct.Struct("<IBBHHHIQQQQIII")
HEADER_BYTES = 64
MORE, PAYLOAD_CHECKSUM = 1, 2
HELLO, AUTHENTICATE, REQUEST, RESPONSE, ITEM, END, ERROR, CANCEL, CREDIT, PING, PONG, DRAIN = range(1, 13)
GENERATE, STATUS = 1, 5
METADATA_LIMIT, SEGMENT_LIMIT, BODY_LIMIT = 1 << 20, 1 << 18, 1 << 30
STREAM_CREDIT = 1 << 18
ERROR_NAMES = {
    1: "notAccepted", 2: "invalidArgument", 3: "cancelled", 4: "deadlineExceeded", 5: "unavailable",
    6: "unauthenticated", 7: "mismatch", 8: "limitExceeded", 9: "internal", 10: "unknownMethod",
    11: "retryBudgetSpent",
}
FINISH_REASONS = {1: "stop", 2: "length"}


class ProtocolError(Exception):
    """The peer broke the protocol."""


class CallError(Exception):
    """The peer refused or failed a call, or the connection."""

    def __init__(self, code, message):
        super().__init__(f"{ERROR_NAMES.get(code, 'internal')}: {message}")
        self.code = code


class Frame:
    """One frame (section 2)."""

    def __init__(self, kind, request_id=0, method=0, flags=PAYLOAD_CHECKSUM, metadata=b"", body=b"",
                 message_body_length=None, deadline=0, trace=(0, 0)):
        self.kind, self.request_id, self.method, self.flags = kind, request_id, method, flags
        self.metadata, self.body, self.deadline, self.trace = metadata, body, deadline, trace
        self.message_body_length = len(body) if message_body_length is None else message_body_length

    def encoded(self):
        checksum = zlib.crc32(self.body, zlib.crc32(self.metadata)) if self.flags & PAYLOAD_CHECKSUM else 0
        head = HEADER.pack(
            MAGIC, VERSION, self.kind, HEADER_BYTES, self.method, self.flags, self.message_body_length,
            self.request_id, self.deadline, *self.trace, len(self.metadata), len(self.body), checksum)
        return head + struct.pack("<I", zlib.crc32(head)) + self.metadata + self.body


def decode_header(data):
    """Checks 64 header bytes; returns (frame without payload, metadata length, body length, checksum)."""
    if len(data) != HEADER_BYTES:
        raise ProtocolError(f"header has {len(data)} bytes, not 64")
    (magic, version, kind, length, method, flags, total, request_id, deadline, high, low, metadata, body,
     checksum) = HEADER.unpack_from(data)
    if magic != MAGIC:
        raise ProtocolError("magic is not IRNL: not an Ironling peer")
    if struct.unpack_from("<I", data, 60)[0] != zlib.crc32(data[:60]):
        raise ProtocolError("header checksum does not match")
    if version != VERSION:
        raise ProtocolError(
            f"a frame of protocol version {version} came to a side that speaks version {VERSION}: "
            "both sides must have the same version, so update the older one")
    if length != HEADER_BYTES:
        raise ProtocolError(f"header length is {length}, version {VERSION} has {HEADER_BYTES}")
    if not HELLO <= kind <= DRAIN:
        raise ProtocolError(f"kind {kind} is unknown")
    if flags & 0xFF & ~(MORE | PAYLOAD_CHECKSUM):
        raise ProtocolError(f"flags {flags} hold a must-understand bit that is unknown")
    if checksum and not flags & PAYLOAD_CHECKSUM:
        raise ProtocolError("payload checksum is set without its flag")
    if metadata > METADATA_LIMIT or body > SEGMENT_LIMIT or total > BODY_LIMIT or body > total:
        raise ProtocolError("a length in the header exceeds its limit")
    frame = Frame(kind, request_id, method, flags, message_body_length=total, deadline=deadline, trace=(high, low))
    return frame, metadata, body, checksum


def read_frame(read):
    """Reads one frame; `read(n)` returns exactly n bytes."""
    frame, metadata, body, checksum = decode_header(read(HEADER_BYTES))
    frame.metadata, frame.body = read(metadata), read(body)
    if frame.flags & PAYLOAD_CHECKSUM and zlib.crc32(frame.body, zlib.crc32(frame.metadata)) != checksum:
        raise ProtocolError("payload checksum does not match")
    return frame


# Metadata fields (section 5).

def field(tag, value):
    return struct.pack("<HHI", tag, 0, len(value)) + value


def number(tag, form, value):
    return field(tag, struct.pack("<" + form, value))


def numbers(tag, form, values):
    return field(tag, struct.pack(f"<{len(values)}{form}", *values))


def texts(tag, values):
    return field(tag, b"".join(struct.pack("<I", len(v)) + v for v in (text.encode() for text in values)))


class Fields:
    """Metadata split into fields; each access names the field when it fails."""

    def __init__(self, data, known):
        self.values, offset = {}, 0
        while offset < len(data):
            if len(data) - offset < 8:
                raise ProtocolError("metadata ends inside a field header")
            tag, _, length = struct.unpack_from("<HHI", data, offset)
            offset += 8
            if length > len(data) - offset:
                raise ProtocolError(f"metadata field {tag} ends beyond the metadata")
            plain = tag & 0x7FFF
            if tag & 0x8000 and plain not in known:
                raise ProtocolError(f"metadata field {plain} must be understood and is unknown")
            if plain in self.values:
                raise ProtocolError(f"metadata field {plain} is there twice")
            self.values[plain] = data[offset:offset + length]
            if len(self.values) > 64:
                raise ProtocolError("metadata has more than 64 fields")
            offset += length

    def bytes(self, tag):
        return self.values.get(tag, b"")

    def text(self, tag, name):
        try:
            return self.bytes(tag).decode("utf-8")
        except UnicodeDecodeError:
            raise ProtocolError(f"{name} is not valid UTF-8") from None

    def number(self, tag, form, name):
        if tag not in self.values:
            raise ProtocolError(f"{name} is missing")
        if len(self.values[tag]) != struct.calcsize("<" + form):
            raise ProtocolError(f"{name} has {len(self.values[tag])} bytes")
        return struct.unpack("<" + form, self.values[tag])[0]

    def numbers(self, tag, form, name):
        data, size = self.bytes(tag), struct.calcsize("<" + form)
        if len(data) % size:
            raise ProtocolError(f"{name} has {len(data)} bytes, not a multiple of {size}")
        return list(struct.unpack(f"<{len(data) // size}{form}", data))

    def pairs(self, tag, name):
        data = self.bytes(tag)
        if len(data) % 8:
            raise ProtocolError(f"{name} ends inside a pair")
        return list(struct.iter_unpack("<If", data))

    def texts(self, tag, name):
        data, offset, result = self.bytes(tag), 0, []
        while offset < len(data):
            if len(data) - offset < 4:
                raise ProtocolError(f"{name} ends inside a length")
            length = struct.unpack_from("<I", data, offset)[0]
            offset += 4
            if length > len(data) - offset:
                raise ProtocolError(f"{name} ends inside an element")
            try:
                result.append(data[offset:offset + length].decode("utf-8"))
            except UnicodeDecodeError:
                raise ProtocolError(f"{name} is not valid UTF-8") from None
            offset += length
        return result


# Messages (section 7).

def encode_hello(nonce, instance_id="python"):
    return (field(1, b"client") + field(2, instance_id.encode()) + number(3, "Q", 0) + field(4, b"") + field(5, b"")
            + number(6, "I", BODY_LIMIT) + number(7, "I", STREAM_CREDIT) + field(8, nonce))


def encode_prompt(prompt, prompt_ids, messages):
    if prompt is not None:
        return field(2, prompt.encode())
    if prompt_ids is not None:
        return numbers(3, "I", list(prompt_ids))
    return texts(9, [part for role, content in messages for part in (role, content)])


def encode_generate(prompt=None, prompt_ids=None, max_tokens=16, temperature=0.0, top_k=0, top_p=1.0, min_p=0.0,
                    repetition_penalty=1.0, presence_penalty=0.0, frequency_penalty=0.0, seed=0, logprobs=None,
                    stop=(), stop_token_ids=(), ignore_eos=False, model="", messages=None, min_tokens=0,
                    logit_bias=None, cache_salt=""):
    """Metadata of a GenerateRequest (section 7.2)."""
    if sum(given is not None for given in (prompt, prompt_ids, messages)) != 1:
        raise ValueError("give one of prompt, prompt_ids and messages")
    data = field(1, model.encode()) + encode_prompt(prompt, prompt_ids, messages)
    data += number(4, "I", max_tokens)
    if logprobs is not None:
        data += number(5, "B", logprobs)
    if stop:
        data += texts(6, stop)
    if stop_token_ids:
        data += numbers(7, "I", list(stop_token_ids))
    if ignore_eos:
        data += number(8, "B", 1)
    if min_tokens:
        data += number(0x8000 | 10, "I", min_tokens)
    if cache_salt:
        data += field(0x8000 | 11, cache_salt.encode())
    # Fields of section 7.1 that say what their absence means are not sent.
    sampling = [(32, "f", temperature, 0), (33, "I", top_k, 0), (34, "f", top_p, 1), (35, "f", min_p, 0),
                (36, "f", repetition_penalty, 1), (37, "f", presence_penalty, 0), (38, "f", frequency_penalty, 0),
                (39, "Q", seed, 0)]
    data += b"".join(number(tag, form, value) for tag, form, value, absent in sampling if value != absent)
    if logit_bias:
        data += field(0x8000 | 40, b"".join(struct.pack("<If", *pair) for pair in logit_bias.items()))
    return data


def decode_item(data):
    fields = Fields(data, range(1, 4))
    return {"text": fields.text(1, "text"), "tokens": fields.pairs(2, "tokens"), "top": fields.pairs(3, "top logprobs")}


def decode_end(data):
    fields = Fields(data, range(1, 5))
    reason = fields.number(1, "B", "finish_reason")
    if reason not in FINISH_REASONS:
        raise ProtocolError("finish_reason is unknown")
    return {"finish_reason": FINISH_REASONS[reason], "prompt_tokens": fields.number(2, "I", "prompt_tokens"),
            "completion_tokens": fields.number(3, "I", "completion_tokens")}


def decode_status(data):
    fields = Fields(data, range(1, 6))
    names, values = fields.texts(1, "counter names"), fields.numbers(2, "q", "counter values")
    if len(names) != len(values) or len(set(names)) != len(names):
        raise ProtocolError("counter names and values do not match")
    return dict(zip(names, values))


def decode_failure(data):
    fields = Fields(data, range(1, 3))
    return CallError(fields.number(1, "H", "code"), fields.text(2, "message"))


def proof(secret, label, challenge, own):
    """HMAC-SHA-256 of section 4."""
    return hmac.new(secret, b"ironling " + label + challenge + own, hashlib.sha256).digest()


class IronlingClient:
    """One connection to a gateway, one call at a time. Also a context manager."""

    def __init__(self, host, port, secret=b"", timeout=600.0):
        self.timeout, self.next_id, self.end = timeout, 1, None
        self.socket = socket.create_connection((host, port), timeout=10)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.expires = time.monotonic() + 10
        try:
            self._handshake(secret)
        except BaseException:
            self.close()
            raise

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        self.socket.close()

    def status(self):
        """The gateway's counters."""
        for kind, metadata in self._call(STATUS, b""):
            if kind == RESPONSE:
                return decode_status(metadata)
        raise ProtocolError("status has no response")

    def generate(self, **options):
        """Yields items as they come; `self.end` holds the End after the last. Options: encode_generate."""
        self.end = None
        for kind, metadata in self._call(GENERATE, encode_generate(**options)):
            if kind == ITEM:
                yield decode_item(metadata)
            else:
                self.end = decode_end(metadata)

    def _handshake(self, secret):
        nonce = os.urandom(32)
        self._send(Frame(HELLO, metadata=encode_hello(nonce)))
        frame = self._receive()
        if frame.kind == ERROR:
            raise decode_failure(frame.metadata)
        if frame.kind != HELLO:
            raise ProtocolError(f"kind {frame.kind} in place of hello")
        hello = Fields(frame.metadata, range(1, 10))
        challenge = hello.bytes(8)
        if len(challenge) != 32:
            raise ProtocolError(f"nonce has {len(challenge)} bytes, not 32")
        if not hmac.compare_digest(hello.bytes(9), proof(secret, b"server", nonce, challenge)):
            raise CallError(6, "the server's shared secret differs from ours")
        self._send(Frame(AUTHENTICATE, metadata=field(1, proof(secret, b"client", challenge, nonce))))

    def _call(self, method, metadata):
        if len(metadata) > METADATA_LIMIT:
            raise ValueError(f"the request has {len(metadata)} bytes, the limit is {METADATA_LIMIT}")
        request_id, self.next_id = self.next_id, self.next_id + 1
        self.expires = time.monotonic() + self.timeout
        self._send(Frame(REQUEST, request_id, method, metadata=metadata, deadline=int(self.timeout * 1e6)))
        consumed, is_over = 0, False
        try:
            while not is_over:
                frame = self._receive()
                if frame.kind == PING:
                    self._send(Frame(PONG))
                elif frame.kind == ERROR and frame.request_id in (0, request_id):
                    is_over = True
                    raise decode_failure(frame.metadata)
                elif frame.request_id != request_id or frame.kind in (PONG, DRAIN):
                    continue
                elif frame.kind not in (RESPONSE, ITEM, END) or frame.flags & MORE or frame.body:
                    raise ProtocolError(f"kind {frame.kind} or its body does not belong to this call")
                else:
                    is_over = frame.kind != ITEM
                    yield frame.kind, frame.metadata
                    consumed += len(frame.metadata) if not is_over else 0
                    if consumed >= STREAM_CREDIT // 4:
                        self._send(Frame(CREDIT, request_id, metadata=number(1, "I", consumed)))
                        consumed = 0
        finally:
            if not is_over:
                try:
                    self._send(Frame(CANCEL, request_id))
                except OSError:
                    pass

    def _send(self, frame):
        self.socket.sendall(frame.encoded())

    def _receive(self):
        return read_frame(self._read)

    def _read(self, count):
        data = bytearray()
        while len(data) < count:
            self.socket.settimeout(max(0.001, self.expires - time.monotonic()))
            try:
                piece = self.socket.recv(min(count - len(data), 1 << 16))
            except TimeoutError:
                raise CallError(4, "no answer in time") from None
            if not piece:
                raise CallError(5, "the server closed the connection")
            data += piece
        return bytes(data)


def parse_arguments(arguments):
    parser = argparse.ArgumentParser(description="Generate over Ironling's binary protocol.")
    parser.add_argument("address", metavar="HOST:PORT")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--prompt", help="text to continue")
    what.add_argument("--prompt-ids", help="token ids to continue, separated by commas")
    what.add_argument("--chat", help="a message to answer, as a conversation of one turn")
    what.add_argument("--status", action="store_true", help="print the gateway's counters")
    parser.add_argument("--max-tokens", type=int, default=16)
    parser.add_argument("--temperature", type=float, default=0.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--logprobs", type=int, help="alternatives per token; tokens go to standard error")
    parser.add_argument("--secret-file", help="file with the shared secret")
    parser.add_argument("--timeout", type=float, default=600.0, help="seconds")
    parser.add_argument("--json", action="store_true", help="print one JSON object per item and one for the end")
    return parser.parse_args(arguments)


def read_secret(path):
    """The secret in a file: without the line end that an editor leaves behind it."""
    with open(path, "rb") as file:
        secret = file.read().rstrip(b"\r\n")
    if not secret:
        raise ValueError(f"{path} holds no secret")
    return secret


def run(options):
    secret = b"" if options.secret_file is None else read_secret(options.secret_file)
    host, _, port = options.address.rpartition(":")
    with IronlingClient(host.strip("[]") or "127.0.0.1", int(port), secret, options.timeout) as client:
        if options.status:
            print(json.dumps(client.status(), indent=None if options.json else 2))
            return
        ids = [int(part) for part in options.prompt_ids.split(",")] if options.prompt_ids is not None else None
        turns = [("user", options.chat)] if options.chat is not None else None
        for item in client.generate(prompt=options.prompt, prompt_ids=ids, messages=turns, max_tokens=options.max_tokens,
                                    temperature=options.temperature, seed=options.seed, logprobs=options.logprobs):
            if options.json:
                print(json.dumps(item, ensure_ascii=False), flush=True)
                continue
            print(item["text"], end="", flush=True)
            if options.logprobs is not None:
                print(item["tokens"], item["top"], file=sys.stderr)
        if options.json:
            print(json.dumps(client.end))
        else:
            print()


def main():
    try:
        run(parse_arguments(sys.argv[1:]))
    except (CallError, ProtocolError, OSError, ValueError, struct.error) as error:
        sys.exit(f"ironling_client: {error}")


if __name__ == "__main__":
    main()
