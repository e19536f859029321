import WireProtocol

/// A whole message: the first frame's header, its metadata and the joined body.
struct Message: Sendable {
    let header: FrameHeader
    let metadata: [UInt8]
    let body: AlignedBuffer?
}

/// Joins segments to messages; a pure value (SPECIFICATION section 8). What it holds is bounded: so many messages, whose
/// bodies together are within `maximumBody`.
struct IncomingMessages: Sendable {
    private struct Partial: Sendable {
        let header: FrameHeader
        let metadata: [UInt8]
        let body: AlignedBuffer
        var filled: Int
    }

    private let maximumBody: Int
    private var partials: [UInt64: Partial] = [:]
    /// Body bytes of the messages that are not yet whole.
    private(set) var byteCount = 0

    init(maximumBody: Int) { self.maximumBody = maximumBody }

    /// Messages that are not yet whole.
    var count: Int { partials.count }

    mutating func removeAll() {
        partials.removeAll()
        byteCount = 0
    }

    /// Takes a frame; returns the message that became whole with it.
    mutating func join(_ frame: Frame) throws(WireError) -> Message? {
        let header = frame.header
        if let partial = partials.removeValue(forKey: header.requestID) { return try proceed(partial, frame) }
        guard header.flags.contains(.more) else {
            guard header.bodyLength == header.messageBodyLength else {
                throw WireError("message body length \(header.messageBodyLength) is not that of its only segment")
            }
            return Message(header: header, metadata: frame.metadata, body: frame.body)
        }
        guard let body = frame.body else { throw WireError("a segment of message \(header.requestID) is empty") }
        guard partials.count < OutgoingMessages.maximumOpen else {
            throw WireError("more than \(OutgoingMessages.maximumOpen) messages are in segments at once")
        }
        let length = Int(header.messageBodyLength)
        guard length <= maximumBody - byteCount else {
            throw WireError(
                "messages in segments have bodies of \(byteCount + length) bytes together, the limit is \(maximumBody)")
        }
        let joined = AlignedBuffer(count: length)
        joined.pointer.copyMemory(from: body.pointer, byteCount: body.count)
        byteCount += length
        partials[header.requestID] = Partial(
            header: header, metadata: frame.metadata, body: joined, filled: body.count)
        return nil
    }

    private mutating func proceed(_ partial: Partial, _ frame: Frame) throws(WireError) -> Message? {
        var partial = partial
        let id = frame.header.requestID
        guard partial.header.kind == frame.header.kind, frame.metadata.isEmpty, let body = frame.body,
            body.count <= partial.body.count - partial.filled
        else { throw WireError("segment does not continue message \(id)") }
        (partial.body.pointer + partial.filled).copyMemory(from: body.pointer, byteCount: body.count)
        partial.filled += body.count
        guard !frame.header.flags.contains(.more) else {
            partials[id] = partial
            return nil
        }
        byteCount -= partial.body.count
        guard partial.filled == partial.body.count else {
            throw WireError("message \(id) ends after \(partial.filled) of \(partial.body.count) bytes")
        }
        return Message(header: partial.header, metadata: partial.metadata, body: partial.body)
    }
}
