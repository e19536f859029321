/// Why a transfer ended.
public enum TransferEnd: Sendable, Hashable, CustomStringConvertible {
    /// Everything moved.
    case complete
    /// The client, or the side that reports this, gave up.
    case cancelled
    /// The other side answered with an error, closed or died.
    case peerFailed(String)
    /// The other side was silent for a whole lease.
    case leaseExpired
    /// The sides disagree about it: a segment does not fit, or comes when it must not.
    case refused(String)
    /// A newer attempt of the same request took its place.
    case superseded

    /// Without the details, for the label of a metric.
    public var label: String {
        switch self {
        case .complete: "complete"
        case .cancelled: "cancelled"
        case .peerFailed: "peer_failed"
        case .leaseExpired: "lease_expired"
        case .refused: "refused"
        case .superseded: "superseded"
        }
    }

    /// A few words.
    public var description: String {
        switch self {
        case .peerFailed(let why): "the peer failed: \(why)"
        case .refused(let why): "refused: \(why)"
        default: label
        }
    }
}

/// What is kept of a transfer that is over.
public struct TransferRecord: Sendable, Equatable, CustomStringConvertible {
    /// Which one.
    public let key: TransferKey
    /// The other side.
    public let peer: String
    /// Why it ended.
    public let end: TransferEnd
    /// States and when they were entered, in microseconds.
    public let phases: [(state: String, entered: UInt64)]
    /// When it was over.
    public let ended: UInt64
    /// Bytes that moved.
    public let byteCount: Int
    /// Segments that moved.
    public let segmentCount: Int

    /// "transfer decode-0/7.3 with prefill-0: complete after 12 ms, 4096 bytes in 3 segments (requested 2 ms, …)".
    public var description: String {
        let ends = phases.dropFirst().map(\.entered) + [ended]
        let spans = zip(phases, ends).map { "\($0.state) \(($1 - min($0.entered, $1)) / 1000) ms" }
        let total = (ended - min(phases.first?.entered ?? ended, ended)) / 1000
        return "transfer \(key) with \(peer): \(end) after \(total) ms, \(byteCount) bytes in \(segmentCount) segments "
            + "(\(spans.joined(separator: ", ")))"
    }

    /// True when all of it is the same.
    public static func == (one: TransferRecord, other: TransferRecord) -> Bool {
        one.key == other.key && one.end == other.end && one.description == other.description
    }
}

/// A transfer, named alike on both sides: the decode instance, its number for the request, and the generation of the
/// reservation the state is meant for.
public struct TransferKey: Sendable, Hashable, Comparable, CustomStringConvertible {
    /// A request of a decode instance, whatever the attempt.
    public struct Request: Sendable, Hashable {
        /// The decode instance.
        public let receiver: String
        /// Its number for the request.
        public let id: UInt64
    }

    /// Whose request it is.
    public let request: Request
    /// Grows with every attempt.
    public let generation: UInt64

    /// A key.
    public init(receiver: String, request: UInt64, generation: UInt64) {
        self.request = Request(receiver: receiver, id: request)
        self.generation = generation
    }

    /// By receiver, request and generation, so that what a sweep does never depends on hashing.
    public static func < (one: TransferKey, other: TransferKey) -> Bool {
        (one.request.receiver, one.request.id, one.generation)
            < (other.request.receiver, other.request.id, other.generation)
    }

    /// "decode-0/7.3".
    public var description: String { "\(request.receiver)/\(request.id).\(generation)" }
}

/// What was counted over all transfers of one side.
public struct TransferCounters: Sendable, Equatable {
    /// How often transfers ended, by label of the reason.
    public internal(set) var ends: [String: Int] = [:]
    /// Events of an earlier generation than the request's current one.
    public internal(set) var stale = 0
    /// Events for transfers that were over, or never here.
    public internal(set) var late = 0
    /// Bytes that moved.
    public internal(set) var byteCount = 0
}
