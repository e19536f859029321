import WireProtocol

/// Messages that wait to be sent, cut into segments that take turns; a pure value (SPECIFICATION section 8).
///
/// Frames of one call keep their order. A further message is begun only while fewer than `maximumOpen` are in segments
/// and their bodies together are within what the receiver accepts.
struct OutgoingMessages: Sendable {
    /// A frame's worth of a message.
    struct Segment: Sendable {
        let header: FrameHeader
        let metadata: [UInt8]
        let body: AlignedBuffer
        let range: Range<Int>
    }

    private struct Entry: Sendable {
        var header: FrameHeader
        var metadata: [UInt8]
        let body: AlignedBuffer
        var offset = 0
    }

    /// Messages that may be in segments at once in each direction.
    static let maximumOpen = 64

    /// Body bytes of the messages in segments, at most: the receiver's maximumBody.
    var maximumBody: Int
    private let segment: Int
    private var entries: [Entry] = []
    private var openCount = 0
    private var openBytes = 0
    /// Bytes not yet handed out.
    private(set) var byteCount = 0

    init(segment: Int, maximumBody: Int) {
        self.segment = segment
        self.maximumBody = maximumBody
    }

    /// Bytes not yet handed out of the message that has most of them.
    var largestRest: Int { entries.reduce(0) { max($0, $1.body.count - $1.offset) } }

    /// True when no message waits.
    var isEmpty: Bool { entries.isEmpty }

    /// True when frames of this call wait, so that a further one must wait behind them.
    func contains(call: UInt64) -> Bool { entries.contains { $0.header.requestID == call } }

    mutating func append(_ header: FrameHeader, metadata: [UInt8], body: AlignedBuffer?) {
        let body = body ?? AlignedBuffer(count: 0)
        byteCount += metadata.count + body.count
        entries.append(Entry(header: header, metadata: metadata, body: body))
    }

    mutating func removeAll() {
        entries.removeAll()
        (openCount, openBytes, byteCount) = (0, 0, 0)
    }

    /// The next segment; nil when nothing waits or what waits must not be begun yet.
    mutating func next() -> Segment? {
        guard let index = nextIndex() else { return nil }
        var entry = entries.remove(at: index)
        let count = min(segment, entry.body.count - entry.offset)
        let range = entry.offset..<entry.offset + count
        let isFirst = entry.offset == 0
        let isLast = range.upperBound == entry.body.count
        if isLast { entry.header.flags.remove(.more) } else { entry.header.flags.insert(.more) }
        let segment = Segment(header: entry.header, metadata: entry.metadata, body: entry.body, range: range)
        byteCount -= count + entry.metadata.count
        entry.metadata = []
        entry.offset = range.upperBound
        if isFirst, !isLast {
            openCount += 1
            openBytes += entry.body.count
        } else if isLast, !isFirst {
            openCount -= 1
            openBytes -= entry.body.count
        }
        if !isLast {
            let call = entry.header.requestID
            entries.insert(entry, at: entries.firstIndex { $0.header.requestID == call } ?? entries.endIndex)
        }
        return segment
    }

    private func nextIndex() -> Int? {
        var held: Set<UInt64> = []
        var mayBegin = true
        for (index, entry) in entries.enumerated() {
            let call = entry.header.requestID
            if held.contains(call) { continue }
            guard entry.offset == 0, entry.body.count > segment else { return index }
            // Messages are begun in their order, so that a large one is not overtaken for ever.
            mayBegin = mayBegin && openCount < Self.maximumOpen && openBytes + entry.body.count <= maximumBody
            if mayBegin { return index }
            held.insert(call)
        }
        return nil
    }
}
