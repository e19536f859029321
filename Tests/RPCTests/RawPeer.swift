import CCrypto
import EventLoop
import RPC
import WireProtocol

/// A peer that speaks frames and keeps no rule but those a test wants it to. Confined to its loop.
final class RawPeer: @unchecked Sendable {
    let stream: any ByteStream
    private let decoderLimits = FrameLimits()
    private var decoder: FrameDecoder
    private var frames: [Frame] = []
    private var waiter: CheckedContinuation<Void, Never>?
    private(set) var isClosed = false

    init(_ stream: any ByteStream) {
        self.stream = stream
        decoder = FrameDecoder(limits: decoderLimits)
        stream.start(
            onBytes: { [self] bytes in
                var rest = bytes
                while let frame = try? decoder.next(&rest) { frames.append(frame) }
                wake()
            },
            onClose: { [self] _ in
                isClosed = true
                wake()
            })
    }

    /// Connects and goes through the handshake of `RPCFixture`'s server as a client.
    static func client(_ loop: any Loop, port: Int, streamCredit: UInt32 = 1 << 18) async throws -> RawPeer {
        let peer = RawPeer(try await loop.connect(host: "127.0.0.1", port: port, timeoutMicroseconds: 5_000_000))
        var hello = Hello()
        (hello.role, hello.fingerprint, hello.streamCredit) = ("attention", "f00d", streamCredit)
        hello.maximumBody = 1 << 30
        hello.nonce = [UInt8](repeating: 3, count: 32)
        peer.send(.hello, metadata: hello.encoded())
        let answer = try Hello(decoding: await peer.next()?.metadata ?? [])
        peer.send(.authenticate, metadata: Authenticate(proof: proof("client", answer.nonce, hello.nonce)).encoded())
        return peer
    }

    /// Goes through the handshake as the server of a client of `RPCFixture`.
    func serve() async throws {
        let hello = try Hello(decoding: await next()?.metadata ?? [])
        var answer = Hello()
        (answer.role, answer.fingerprint) = ("sampler", "f00d")
        (answer.streamCredit, answer.maximumBody) = (1 << 18, 1 << 30)
        answer.nonce = [UInt8](repeating: 4, count: 32)
        answer.proof = Self.proof("server", hello.nonce, answer.nonce)
        send(.hello, metadata: answer.encoded())
        _ = await next()
    }

    private static func proof(_ label: String, _ challenge: [UInt8], _ own: [UInt8]) -> [UInt8] {
        let message = Array("ironling \(label)".utf8) + challenge + own
        var digest = [UInt8](repeating: 0, count: 32)
        var length: UInt32 = 0
        let key = RPCFixture.secret
        _ = HMAC(EVP_sha256(), key, Int32(key.count), message, message.count, &digest, &length)
        return digest
    }

    func send(
        _ kind: FrameKind, call: UInt64 = 0, method: Method = Method(rawValue: 0), deadline: UInt64 = 0,
        metadata: [UInt8] = [], body: [UInt8] = [], of messageBody: Int? = nil
    ) {
        var header = FrameHeader(kind: kind, requestID: call)
        header.method = method
        header.deadlineMicroseconds = deadline
        header.metadataLength = UInt32(metadata.count)
        header.bodyLength = UInt32(body.count)
        header.messageBodyLength = UInt32(messageBody ?? body.count)
        if messageBody != nil { header.flags = .more }
        var bytes: [UInt8] = []
        header.encode(into: &bytes)
        stream.write(bytes + metadata + body)
    }

    /// The next frame that is not a sign of life, answering pings; nil when the connection is over.
    func next() async -> Frame? {
        while true {
            while frames.isEmpty, !isClosed { await withCheckedContinuation { waiter = $0 } }
            guard !frames.isEmpty else { return nil }
            let frame = frames.removeFirst()
            if frame.header.kind == .ping { send(.pong) } else if frame.header.kind != .pong { return frame }
        }
    }

    /// The failure with which the connection or a call ends, passing over what comes before it.
    func failure() async -> RPCError? {
        while let frame = await next() {
            guard frame.header.kind == .error, let failure = try? Failure(decoding: frame.metadata) else { continue }
            return RPCError(failure.code, failure.message)
        }
        return nil
    }

    private func wake() {
        waiter?.resume()
        waiter = nil
    }
}
