import ContentIdentity

/// Who a peer is and what it accepts (kind hello).
public struct Hello: Sendable, Equatable {
    /// "client", "gateway", "attention", "experts" or "sampler".
    public var role = "client"
    /// Name of this process.
    public var instanceID = ""
    /// Grows with every restart of the process.
    public var generation: UInt64 = 0
    /// Fingerprint of the served checkpoint; empty for clients.
    public var fingerprint = ""
    /// What part of the model this peer holds, for instance "shard 0 of 2".
    public var layout = ""
    /// Largest message body this peer accepts.
    public var maximumBody: UInt32 = 1 << 30
    /// Bytes of stream items this peer accepts per stream before it grants more.
    public var streamCredit: UInt32 = 1 << 18
    /// 32 random bytes.
    public var nonce: [UInt8] = []
    /// In the server's hello: HMAC-SHA256 that answers the client's nonce.
    public var proof: [UInt8] = []
    /// Contents of the served checkpoint, between services; nil when no weights are served.
    public var contents: ContentSummary?

    /// Names of files a hello may have.
    static let maximumFiles = 16

    /// A hello with defaults.
    public init() {}

    /// Metadata of the hello frame.
    public func encoded() -> [UInt8] {
        var writer = FieldWriter()
        writer.put(1, role)
        writer.put(2, instanceID)
        writer.put(3, generation)
        writer.put(4, fingerprint)
        writer.put(5, layout)
        writer.put(6, maximumBody)
        writer.put(7, streamCredit)
        writer.put(8, nonce)
        if !proof.isEmpty { writer.put(9, proof) }
        guard let contents else { return writer.bytes }
        let files = contents.files.sorted { $0.key < $1.key }
        writer.put(10, contents.weights.bytes)
        writer.put(11, contents.sketch.bytes)
        writer.put(12, strings: files.map(\.key))
        writer.put(13, files.flatMap(\.value.bytes))
        return writer.bytes
    }

    /// Parses metadata.
    ///
    /// - Throws: `WireError` that names the field.
    public init(decoding bytes: [UInt8]) throws(WireError) {
        let reader = try FieldReader(bytes, known: 1...13)
        role = try reader.text(1, "role", limit: 64) ?? ""
        instanceID = try reader.text(2, "instance id", limit: 256) ?? ""
        generation = try reader.integer(3, "generation", fallback: 0)
        fingerprint = try reader.text(4, "fingerprint", limit: 128) ?? ""
        layout = try reader.text(5, "layout", limit: 256) ?? ""
        maximumBody = try reader.integer(6, "maximum body")
        streamCredit = try reader.integer(7, "stream credit")
        nonce = reader.data(8) ?? []
        proof = reader.data(9) ?? []
        guard nonce.count == 32 else { throw WireError("nonce has \(nonce.count) bytes, not 32") }
        guard streamCredit >= 4096 else { throw WireError("stream credit is \(streamCredit), the least is 4096") }
        contents = try Self.contents(reader)
    }

    private static func contents(_ reader: FieldReader) throws(WireError) -> ContentSummary? {
        guard let bytes = reader.data(10) else { return nil }
        guard let weights = ContentDigest(bytes: bytes) else {
            throw WireError("weights digest has \(bytes.count) bytes, not \(ContentDigest.byteCount)")
        }
        guard let sketch = ContentSketch(bytes: reader.data(11) ?? []) else {
            throw WireError("weights sketch has \(reader.data(11)?.count ?? 0) bytes, not \(ContentSketch.byteCount)")
        }
        let names = try reader.strings(12, "file names", limit: maximumFiles, byteLimit: 64)
        let digests = reader.data(13) ?? []
        guard digests.count == names.count * ContentDigest.byteCount else {
            throw WireError("file digests have \(digests.count) bytes for \(names.count) files")
        }
        var files: [String: ContentDigest] = [:]
        for (index, name) in names.enumerated() {
            files[name] = ContentDigest(
                bytes: digests.dropFirst(index * ContentDigest.byteCount).prefix(ContentDigest.byteCount))
        }
        return ContentSummary(weights: weights, sketch: sketch, files: files)
    }
}

/// The client's answer to the server's challenge (kind authenticate).
public struct Authenticate: Sendable, Equatable {
    /// HMAC-SHA256 that answers the server's nonce.
    public var proof: [UInt8]

    /// An answer.
    public init(proof: [UInt8]) { self.proof = proof }

    /// Metadata of the authenticate frame.
    public func encoded() -> [UInt8] {
        var writer = FieldWriter()
        writer.put(1, proof)
        return writer.bytes
    }

    /// Parses metadata.
    ///
    /// - Throws: `WireError` that names the field.
    public init(decoding bytes: [UInt8]) throws(WireError) {
        guard let proof = try FieldReader(bytes, known: 1...1).data(1), proof.count == 32 else {
            throw WireError("proof is missing or not 32 bytes")
        }
        self.proof = proof
    }
}

/// Why a call failed (SPECIFICATION section 6).
public enum ErrorCode: UInt16, Sendable, CaseIterable {
    /// Nothing was done; the call may be sent again, here or elsewhere.
    case notAccepted = 1
    /// The request itself is wrong.
    case invalidArgument = 2
    /// The caller cancelled.
    case cancelled = 3
    /// The deadline passed.
    case deadlineExceeded = 4
    /// The peer, or one it needs, cannot be reached.
    case unavailable = 5
    /// The shared secret does not match.
    case unauthenticated = 6
    /// Version, role, fingerprint or layout differ.
    case mismatch = 7
    /// A stated limit was exceeded.
    case limitExceeded = 8
    /// A fault of the service.
    case `internal` = 9
    /// The method is unknown to the service.
    case unknownMethod = 10
    /// The call was lost, and so many were that it is not tried again.
    case retryBudgetSpent = 11
}

/// Which part of a service's chain failed, as the service tells its caller (SPECIFICATION section 6).
public enum FailedLink: UInt8, Sendable, CaseIterable {
    /// The service itself, or the caller's connection to it.
    case own = 0
    /// A call of the service to experts.
    case experts = 1
    /// A call of the service to a sampler.
    case sampler = 2
    /// The hand-off of a prompt's state from a prefill instance.
    case handOff = 3
}

/// A failure (kind error).
public struct Failure: Sendable, Equatable {
    /// Longest sentence, in bytes of UTF-8; what is longer is cut when it is sent.
    private static let messageBytes = 4096

    /// What kind.
    public var code: ErrorCode
    /// One sentence.
    public var message: String
    /// Where it was met.
    public var link: FailedLink

    /// A failure.
    public init(code: ErrorCode, message: String, link: FailedLink = .own) {
        self.code = code
        self.message = message
        self.link = link
    }

    /// Metadata of the error frame.
    public func encoded() -> [UInt8] {
        var writer = FieldWriter()
        writer.put(1, code.rawValue)
        writer.put(2, message.cut(toBytes: Self.messageBytes))
        if link != .own { writer.put(3, link.rawValue) }
        return writer.bytes
    }

    /// Parses metadata; an unknown code counts as internal, an unknown link as the service's own.
    ///
    /// - Throws: `WireError` that names the field.
    public init(decoding bytes: [UInt8]) throws(WireError) {
        let reader = try FieldReader(bytes, known: 1...3)
        code = ErrorCode(rawValue: try reader.integer(1, "code")) ?? .internal
        message = try reader.text(2, "message", limit: Self.messageBytes) ?? ""
        link = FailedLink(rawValue: try reader.integer(3, "link", fallback: 0)) ?? .own
    }
}

/// More bytes for a stream (kind credit).
public struct Credit: Sendable, Equatable {
    /// Bytes.
    public var bytes: UInt32

    /// A grant.
    public init(bytes: UInt32) { self.bytes = bytes }

    /// Metadata of the credit frame.
    public func encoded() -> [UInt8] {
        var writer = FieldWriter()
        writer.put(1, bytes)
        return writer.bytes
    }

    /// Parses metadata.
    ///
    /// - Throws: `WireError` that names the field.
    public init(decoding data: [UInt8]) throws(WireError) {
        bytes = try FieldReader(data, known: 1...1).integer(1, "bytes")
    }
}
