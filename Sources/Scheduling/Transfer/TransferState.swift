/// What can happen to a transfer, on either side.
public enum TransferEvent: String, Sendable, CaseIterable {
    /// Receiver: the sender's manifest matches. Sender: the prompt has memory and is computed.
    case accepted
    /// A segment was written into our pages, or copied out of them.
    case segment
    /// Receiver: the last segment was written. Sender: the prompt is computed and all segments are handed to the stream.
    case lastSegment
    /// Receiver: the end message came. Sender: everything, the end message too, was copied out.
    case end
    /// Cancelled, failed, expired: the reason stands in the record.
    case stop
    /// Nothing reads or writes the memory through this transfer any more.
    case quiescent
}

/// One side's states with their legal transitions as a table. An event that a state's row does not name is illegal: it is
/// counted and stops the transfer. What arrives when a transfer is stopping or over is late: counted and ignored.
public protocol TransferState: RawRepresentable<String>, CaseIterable, Hashable, Sendable {
    /// State of a transfer that was just opened.
    static var initial: Self { get }
    /// A stop was asked for, the memory is not yet quiescent: quarantine.
    static var stopping: Self { get }
    /// Everything moved; a terminal state.
    static var complete: Self { get }
    /// It ended otherwise; a terminal state.
    static var failed: Self { get }
    /// Where each event leads.
    static var transitions: [Self: [TransferEvent: Self]] { get }
}

extension TransferState {
    /// True in the two terminal states.
    public var isTerminal: Bool { self == .complete || self == .failed }

    /// True once nothing may move any more.
    public var isOver: Bool { isTerminal || self == .stopping }

    /// Where `event` leads, nil when it is illegal.
    public func next(_ event: TransferEvent) -> Self? { Self.transitions[self]?[event] }
}

/// The decode side. It has reserved slot and pages before the first state exists, and it alone writes into them.
///
/// What a cancel, a dead or frozen peer, or a refused segment does in each phase:
///
/// | phase | memory | then |
/// |---|---|---|
/// | requested | reserved, nothing written | the call is cancelled; free once no write runs (none can) |
/// | receiving | partly written, nobody else may write | the call is cancelled; free once the write in progress is over |
/// | received | written, not yet decoded from | as above; the state is thrown away, it may lack its first token |
/// | stopping | quarantined | nothing more: one end, one reason |
/// | complete | belongs to the running request | nothing here: the scheduler removes the request |
/// | failed | free | nothing |
public enum IncomingState: String, TransferState {
    /// Slot and pages are reserved, the prefill call is open.
    case requested
    /// Manifests match; segments arrive.
    case receiving
    /// All segments are written; the end message with the first token is outstanding.
    case received
    /// Stopped; a write into our pages may be in progress.
    case stopping
    /// The request decodes.
    case complete
    /// Over without success.
    case failed

    /// Requested.
    public static let initial = requested

    /// The table.
    public static let transitions: [IncomingState: [TransferEvent: IncomingState]] = [
        .requested: [.accepted: .receiving, .stop: .stopping],
        .receiving: [.segment: .receiving, .lastSegment: .received, .stop: .stopping],
        .received: [.end: .complete, .stop: .stopping],
        .stopping: [.quiescent: .failed],
        .complete: [:],
        .failed: [:],
    ]
}

/// The prefill side. Its pages stay until everything was copied out or the call is over.
///
/// | phase | memory | then |
/// |---|---|---|
/// | queued | none | the request leaves the queue |
/// | sending | being computed and read | the receiver's call ends; free once step and copy in progress are over |
/// | draining | computed, being read | as above |
/// | stopping | quarantined | nothing more |
/// | complete | free | nothing: a cancel that comes now came too late for this side |
/// | failed | free | nothing |
public enum OutgoingState: String, TransferState {
    /// The call is here, the prompt waits for memory.
    case queued
    /// The prompt is computed; segments leave while later layers compute.
    case sending
    /// All is computed and handed to the stream, not all is copied out.
    case draining
    /// Stopped; a step or a copy may be in progress.
    case stopping
    /// Everything was copied out.
    case complete
    /// Over without success.
    case failed

    /// Queued.
    public static let initial = queued

    /// The table.
    public static let transitions: [OutgoingState: [TransferEvent: OutgoingState]] = [
        .queued: [.accepted: .sending, .stop: .stopping],
        .sending: [.segment: .sending, .lastSegment: .draining, .stop: .stopping],
        .draining: [.segment: .draining, .end: .complete, .stop: .stopping],
        .stopping: [.quiescent: .failed],
        .complete: [:],
        .failed: [:],
    ]
}
