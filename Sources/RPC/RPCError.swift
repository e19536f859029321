import ContentIdentity
import WireProtocol

/// Why a call did not succeed: the protocol's code and one sentence.
public struct RPCError: Error, Sendable, Equatable, CustomStringConvertible {
    /// What kind.
    public let code: ErrorCode
    /// One sentence.
    public let message: String
    /// What failed behind the peer, as the peer tells it.
    public let link: FailedLink

    /// A failure with its sentence.
    public init(_ code: ErrorCode, _ message: String, link: FailedLink = .own) {
        self.code = code
        self.message = message
        self.link = link
    }

    /// What a peer answered.
    init(_ failure: Failure) { self.init(failure.code, failure.message, link: failure.link) }

    /// The same for the wire.
    var failure: Failure { Failure(code: code, message: message, link: link) }

    /// True when nothing was done and the call may be sent again.
    public var isRetryable: Bool { code == .notAccepted || code == .unavailable }

    /// Code and sentence.
    public var description: String { "\(code): \(message)" }
}

/// What travels with a call, an item or an answer.
public struct RPCPayload: Sendable {
    /// Encoded message.
    public var metadata: [UInt8]
    /// Raw tensors.
    public var body: AlignedBuffer?

    /// A payload.
    public init(metadata: [UInt8] = [], body: AlignedBuffer? = nil) {
        self.metadata = metadata
        self.body = body
    }

    /// What it counts for in credits.
    var byteCount: Int { metadata.count + (body?.count ?? 0) }
}

/// Who this process is, as it says in its hello.
public struct PeerIdentity: Sendable, Equatable {
    /// "client", "gateway", "attention", "experts" or "sampler".
    public var role: String
    /// Name of this process.
    public var instanceID: String
    /// Grows with every restart.
    public var generation: UInt64
    /// Fingerprint of the served checkpoint; empty for clients.
    public var fingerprint: String
    /// What part of the model it holds.
    public var layout: String
    /// Contents of the served checkpoint; nil for clients, and where no weights are served.
    public var contents: ContentManifest?

    /// An identity.
    public init(
        role: String, instanceID: String = "", generation: UInt64 = 0, fingerprint: String = "", layout: String = "",
        contents: ContentManifest? = nil
    ) {
        self.role = role
        self.instanceID = instanceID
        self.generation = generation
        self.fingerprint = fingerprint
        self.layout = layout
        self.contents = contents
    }
}

/// Bounds of one connection.
public struct RPCLimits: Sendable, Equatable {
    /// Frame limits.
    public var frames = FrameLimits()
    /// Calls in flight on one connection.
    public var pendingCalls = 1024
    /// Calls in flight of a server, over all connections.
    public var serverCalls = 8192
    /// Calls that wait for a client's connection to be made.
    public var waitingCalls = 1024
    /// Connections a server keeps.
    public var connections = 4096
    /// Bytes of items a stream may send before the receiver grants more.
    public var streamCredit: UInt32 = 1 << 18
    /// Credit a stream may have at most, whatever its caller grants.
    public var maximumCredit = 16 << 20
    /// A stream whose caller grants nothing for so long is ended.
    public var consumerMicroseconds: UInt64 = 60_000_000
    /// A call waits so long for its connection, and no longer than its time-out.
    public var connectMicroseconds: UInt64 = 10_000_000
    /// A connection that has not finished its handshake by then is closed.
    public var handshakeMicroseconds: UInt64 = 5_000_000
    /// Idle time after which a ping is sent.
    public var heartbeatMicroseconds: UInt64 = 2_000_000
    /// Silence after which a peer is given up.
    public var silenceMicroseconds: UInt64 = 15_000_000
    /// A peer that takes nothing for so long while bytes wait for it is cut off.
    public var stallMicroseconds: UInt64 = 10_000_000
    /// Bytes that may wait to be taken by a peer, beside the largest message among them, before it counts as stuck.
    public var pendingWriteBytes = 256 << 20

    /// The defaults of SPECIFICATION section 9.
    public init() {}
}
