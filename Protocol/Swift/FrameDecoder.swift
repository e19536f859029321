/// One whole frame.
public struct Frame: Sendable {
    /// Its header.
    public let header: FrameHeader
    /// Tagged fields.
    public let metadata: [UInt8]
    /// Raw tensors, 64-byte aligned; nil when the frame has none.
    public let body: AlignedBuffer?

    /// A frame of these parts.
    public init(header: FrameHeader, metadata: [UInt8], body: AlignedBuffer?) {
        self.header = header
        self.metadata = metadata
        self.body = body
    }
}

/// Limits a decoder holds its peer to.
public struct FrameLimits: Sendable, Equatable {
    /// Metadata bytes of one frame.
    public var metadata: Int
    /// Body bytes of one frame (a segment).
    public var segment: Int
    /// Body bytes of one message over all segments.
    public var body: Int

    /// Limits; the defaults are those of SPECIFICATION section 9.
    public init(metadata: Int = 1 << 20, segment: Int = 1 << 18, body: Int = 1 << 30) {
        self.metadata = metadata
        self.segment = segment
        self.body = body
    }

    /// Of a connection whose handshake is not done: nobody who has not proved the secret takes memory.
    public static let handshake = FrameLimits(metadata: 8192, segment: 0, body: 0)
}

/// Bytes in, frames out, in whatever pieces they come. A pure value: it does no I/O, and never holds more than one
/// header and one frame within the limits.
public struct FrameDecoder: Sendable {
    /// What the next frames are held to; may change between frames.
    public var limits: FrameLimits
    private var headerBytes: [UInt8] = []
    private var header: FrameHeader?
    private var metadata: [UInt8] = []
    private var body: AlignedBuffer?
    private var bodyFilled = 0

    /// A decoder that expects a header first.
    public init(limits: FrameLimits) {
        self.limits = limits
        headerBytes.reserveCapacity(FrameHeader.byteCount)
    }

    /// Takes bytes from the front of `bytes` until a frame is whole or they run out. After an error the connection is
    /// beyond repair.
    ///
    /// - Throws: `WireError`, after which the connection is beyond repair.
    public mutating func next(_ bytes: inout UnsafeRawBufferPointer) throws(WireError) -> Frame? {
        if header == nil {
            guard let parsed = try takeHeader(&bytes) else { return nil }
            try check(parsed)
            header = parsed
            metadata.removeAll()
            metadata.reserveCapacity(Int(parsed.metadataLength))
            body = parsed.bodyLength > 0 ? AlignedBuffer(count: Int(parsed.bodyLength)) : nil
            bodyFilled = 0
        }
        guard let header else { return nil }
        let wanted = min(Int(header.metadataLength) - metadata.count, bytes.count)
        metadata.append(contentsOf: bytes.prefix(wanted))
        bytes = UnsafeRawBufferPointer(rebasing: bytes.dropFirst(wanted))
        if let body, bodyFilled < body.count, metadata.count == Int(header.metadataLength) {
            let count = min(body.count - bodyFilled, bytes.count)
            if let source = bytes.baseAddress {
                (body.pointer + bodyFilled).copyMemory(from: source, byteCount: count)
            }
            bodyFilled += count
            bytes = UnsafeRawBufferPointer(rebasing: bytes.dropFirst(count))
        }
        guard metadata.count == Int(header.metadataLength), bodyFilled == Int(header.bodyLength) else { return nil }
        self.header = nil
        if header.flags.contains(.payloadChecksum), payloadChecksum() != header.payloadChecksum {
            throw WireError("payload checksum does not match")
        }
        return Frame(header: header, metadata: metadata, body: body)
    }

    private func payloadChecksum() -> UInt32 {
        let checksum = metadata.withUnsafeBytes { checksum32($0) }
        return body.map { checksum32($0.bytes, continuing: checksum) } ?? checksum
    }

    private mutating func takeHeader(_ bytes: inout UnsafeRawBufferPointer) throws(WireError) -> FrameHeader? {
        if headerBytes.isEmpty, bytes.count >= FrameHeader.byteCount {
            let parsed = try FrameHeader(
                decoding: UnsafeRawBufferPointer(rebasing: bytes.prefix(FrameHeader.byteCount)))
            bytes = UnsafeRawBufferPointer(rebasing: bytes.dropFirst(FrameHeader.byteCount))
            return parsed
        }
        let wanted = min(FrameHeader.byteCount - headerBytes.count, bytes.count)
        headerBytes.append(contentsOf: bytes.prefix(wanted))
        bytes = UnsafeRawBufferPointer(rebasing: bytes.dropFirst(wanted))
        guard headerBytes.count == FrameHeader.byteCount else { return nil }
        let whole = headerBytes
        headerBytes.removeAll(keepingCapacity: true)
        var result: Result<FrameHeader, WireError> = .failure(WireError("header is empty"))
        whole.withUnsafeBytes { raw in
            do throws(WireError) { result = .success(try FrameHeader(decoding: raw)) } catch {
                result = .failure(error)
            }
        }
        return try result.get()
    }

    private func check(_ header: FrameHeader) throws(WireError) {
        guard Int(header.metadataLength) <= limits.metadata else {
            throw WireError("metadata length \(header.metadataLength) exceeds the limit of \(limits.metadata)")
        }
        guard Int(header.bodyLength) <= limits.segment else {
            throw WireError("body length \(header.bodyLength) exceeds the segment limit of \(limits.segment)")
        }
        guard Int(header.messageBodyLength) <= limits.body, header.bodyLength <= header.messageBodyLength else {
            throw WireError(
                "message body length \(header.messageBodyLength) is less than the segment or over the limit of "
                    + "\(limits.body)")
        }
    }
}
