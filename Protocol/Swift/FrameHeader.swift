import CISAL

/// What a frame is for (SPECIFICATION section 3).
public enum FrameKind: UInt8, Sendable, CaseIterable {
    /// Identity, limits and challenge of a peer.
    case hello = 1
    /// The client's answer to the challenge.
    case authenticate = 2
    /// A call.
    case request = 3
    /// The whole answer of a unary call.
    case response = 4
    /// One element of a streamed answer.
    case item = 5
    /// The end of a streamed answer.
    case end = 6
    /// A call, or with request id 0 the connection, has failed.
    case error = 7
    /// The caller no longer wants the answer.
    case cancel = 8
    /// The receiver of a stream allows more bytes.
    case credit = 9
    /// Are you there?
    case ping = 10
    /// Yes.
    case pong = 11
    /// The sender takes no further requests on this connection.
    case drain = 12
}

/// What a request asks for (SPECIFICATION section 7).
public struct Method: RawRepresentable, Sendable, Hashable {
    /// The number on the wire.
    public let rawValue: UInt16

    /// A method by its number, known or not.
    public init(rawValue: UInt16) { self.rawValue = rawValue }

    /// Text or ids in, text and tokens out; streamed.
    public static let generate = Method(rawValue: 1)
    /// Token ids in, tokens out; streamed.
    public static let generateTokens = Method(rawValue: 2)
    /// One MoE layer for some rows; unary.
    public static let expertsForward = Method(rawValue: 3)
    /// Hidden rows in, tokens out; unary.
    public static let sample = Method(rawValue: 4)
    /// Counters of a service; unary.
    public static let status = Method(rawValue: 5)
    /// Compute a prompt and stream its state; decode attention to prefill attention.
    public static let prefill = Method(rawValue: 6)
    /// Forget the states that are kept for requests to come; unary.
    public static let flush = Method(rawValue: 7)
}

/// Flags of a frame. The low byte must be understood, the high byte may be ignored.
public struct FrameFlags: OptionSet, Sendable {
    /// The bits on the wire.
    public let rawValue: UInt16

    /// Flags by their bits.
    public init(rawValue: UInt16) { self.rawValue = rawValue }

    /// More segments of this message's body follow in frames of the same kind and request id.
    public static let more = FrameFlags(rawValue: 1)
    /// `payloadChecksum` holds the CRC-32 of this frame's metadata and body bytes, in that order.
    public static let payloadChecksum = FrameFlags(rawValue: 2)
    /// In a request: whoever sent the trace id wants spans recorded for it. May be ignored.
    public static let sampled = FrameFlags(rawValue: 0x0100)

    static let mustUnderstand: UInt16 = 0x00FF
    static let known: UInt16 = 3
}

/// The fixed header in front of every frame: 64 bytes, little-endian, with a checksum of its own that is verified
/// before any length in it is trusted (SPECIFICATION section 2).
public struct FrameHeader: Sendable, Equatable {
    /// Bytes on the wire.
    public static let byteCount = 64
    /// "IRNL".
    public static let magic: UInt32 = 0x4C4E_5249
    /// The only version this code speaks.
    public static let version: UInt8 = 2

    /// The version it is written in: another one only where a peer of that version is told why it is refused.
    public var version = Self.version
    /// What the frame is for.
    public var kind: FrameKind
    /// What a request asks for; 0 in other kinds.
    public var method = Method(rawValue: 0)
    /// Flags.
    public var flags: FrameFlags = []
    /// Body bytes of the whole message, over all its segments.
    public var messageBodyLength: UInt32 = 0
    /// The call this frame belongs to, chosen by the client; 0 means the connection.
    public var requestID: UInt64 = 0
    /// Microseconds the caller still waits; 0 is no limit.
    public var deadlineMicroseconds: UInt64 = 0
    /// W3C trace id, first half.
    public var traceHigh: UInt64 = 0
    /// W3C trace id, second half.
    public var traceLow: UInt64 = 0
    /// Metadata bytes after the header.
    public var metadataLength: UInt32 = 0
    /// Body bytes after the metadata.
    public var bodyLength: UInt32 = 0
    /// CRC-32 of metadata and body, when the flag says so, else 0.
    public var payloadChecksum: UInt32 = 0

    /// A header of `kind` for call `requestID`.
    public init(kind: FrameKind, requestID: UInt64 = 0) {
        self.kind = kind
        self.requestID = requestID
    }

    /// Appends the 64 bytes.
    public func encode(into bytes: inout [UInt8]) {
        let start = bytes.count
        bytes.appendInteger(Self.magic)
        bytes.append(version)
        bytes.append(kind.rawValue)
        bytes.appendInteger(UInt16(Self.byteCount))
        bytes.appendInteger(method.rawValue)
        bytes.appendInteger(flags.rawValue)
        bytes.appendInteger(messageBodyLength)
        bytes.appendInteger(requestID)
        bytes.appendInteger(deadlineMicroseconds)
        bytes.appendInteger(traceHigh)
        bytes.appendInteger(traceLow)
        bytes.appendInteger(metadataLength)
        bytes.appendInteger(bodyLength)
        bytes.appendInteger(payloadChecksum)
        let checksum = bytes.withUnsafeBytes { checksum32(UnsafeRawBufferPointer(rebasing: $0[start...])) }
        bytes.appendInteger(checksum)
    }

    /// Parses exactly 64 bytes: magic, checksum, then everything else.
    ///
    /// - Throws: `WireError` with the first check of SPECIFICATION section 2 that fails.
    public init(decoding bytes: UnsafeRawBufferPointer) throws(WireError) {
        guard bytes.count == Self.byteCount else { throw WireError("header has \(bytes.count) bytes, not 64") }
        func field<Value: FixedWidthInteger>(_ offset: Int, _ type: Value.Type) -> Value {
            Value(littleEndian: bytes.loadUnaligned(fromByteOffset: offset, as: Value.self))
        }
        guard field(0, UInt32.self) == Self.magic else { throw WireError("magic is not IRNL: not an Ironling peer") }
        let expected = checksum32(UnsafeRawBufferPointer(rebasing: bytes[..<60]))
        guard field(60, UInt32.self) == expected else { throw WireError("header checksum does not match") }
        guard field(4, UInt8.self) == Self.version else { throw WireError(versionOfPeer: field(4, UInt8.self)) }
        guard field(6, UInt16.self) == UInt16(Self.byteCount) else {
            throw WireError("header length is \(field(6, UInt16.self)), version \(Self.version) has \(Self.byteCount)")
        }
        guard let kind = FrameKind(rawValue: field(5, UInt8.self)) else {
            throw WireError("kind \(field(5, UInt8.self)) is unknown")
        }
        let flags = field(10, UInt16.self)
        guard flags & FrameFlags.mustUnderstand & ~FrameFlags.known == 0 else {
            throw WireError("flags \(flags) hold a must-understand bit that is unknown")
        }
        self.kind = kind
        self.flags = FrameFlags(rawValue: flags)
        method = Method(rawValue: field(8, UInt16.self))
        messageBodyLength = field(12, UInt32.self)
        requestID = field(16, UInt64.self)
        deadlineMicroseconds = field(24, UInt64.self)
        traceHigh = field(32, UInt64.self)
        traceLow = field(40, UInt64.self)
        metadataLength = field(48, UInt32.self)
        bodyLength = field(52, UInt32.self)
        payloadChecksum = field(56, UInt32.self)
        guard self.flags.contains(.payloadChecksum) || payloadChecksum == 0 else {
            throw WireError("payload checksum is set without its flag")
        }
    }
}

/// CRC-32 with the zlib polynomial, as `zlib.crc32(bytes, start)` computes it.
public func checksum32(_ bytes: UnsafeRawBufferPointer, continuing start: UInt32 = 0) -> UInt32 {
    guard let base = bytes.baseAddress, !bytes.isEmpty else { return start }
    return crc32_gzip_refl(start, base.assumingMemoryBound(to: UInt8.self), UInt64(bytes.count))
}

extension [UInt8] {
    mutating func appendInteger<Value: FixedWidthInteger>(_ value: Value) {
        Swift.withUnsafeBytes(of: value.littleEndian) { append(contentsOf: $0) }
    }
}
