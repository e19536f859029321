import Serving
import StatePools

/// What can happen to a transfer, on either side.
public enum TransferEvent: Sendable, Equatable {
    /// Receiver: the sender answers. Sender: the prompt has memory, which `hold` keeps until the transfer is over.
    case accepted(hold: Hold?)
    /// Receiver: a segment of so many bytes has come. Sender: it is final, and may leave.
    case segment(TransferSegment, byteCount: Int)
    /// Receiver: the end message came, and counts so many segments. Sender: the prompt is computed, all of it has left.
    case end(segments: Int)
    /// Cancelled, failed or forgotten.
    case stop(TransferEnd)
}

/// What the owner of a transfer has to do, in this order. Each is returned once.
public enum TransferAction: Sendable, Equatable {
    /// Copy the segment's bytes into or out of the memory now, before anything else is told. Without this action they must
    /// not be touched.
    case copy(TransferKey)
    /// The memory may be used again: end the hold.
    case endHold(Hold)
    /// Receiver: everything is there, and the request decodes from it. The hold ends with that.
    case received(TransferKey, Hold)
    /// It is over, and why. End the call if it is open, so that the other side learns of it.
    case over(TransferKey, TransferEnd)
}

/// Limits of one side's transfers.
public struct TransferLimits: Sendable, Equatable {
    /// Transfers open at once.
    public var open = 1024
    /// Records kept of transfers that are over.
    public var records = 256
    /// How long a silent peer counts as alive, in microseconds.
    public var leaseMicroseconds: UInt64 = 3_000_000

    /// The defaults.
    public init() {}
}

/// All transfers of one side of one instance, as a value: how far each is, what of it has passed, the memory it holds and
/// until when its peer counts as alive.
///
/// | phase | accepted | segment | end | stop, lease over |
/// |---|---|---|---|---|
/// | waiting | moving | refused | refused | over |
/// | moving | refused | moving; moved with the last one | refused: parts are missing | over |
/// | moved | refused | refused: it came twice | complete | over |
///
/// What is refused ends the transfer: the peer disagrees about it. What comes for one that is over, or of an earlier
/// generation, is counted and ignored. A transfer's memory is touched by the owner alone and only at a `copy`, which it
/// finishes before it tells the next event; so whenever a transfer ends nothing reads or writes there, and the hold ends
/// with it. What computes in that memory holds it too, on its own account.
public struct Transfers: Sendable {
    /// How far a transfer is.
    public enum Phase: String, Sendable, CaseIterable {
        /// Receiver: the call is open. Sender: the prompt waits for memory.
        case waiting
        /// Segments pass.
        case moving
        /// All have passed; the end is outstanding.
        case moved
    }

    private struct Transfer: Sendable {
        let peer: String
        var phase = Phase.waiting
        var hold: Hold?
        var ledger: SegmentLedger
        var leaseEnds: UInt64
        var phases: [(state: String, entered: UInt64)]

        mutating func enter(_ next: Phase, now: UInt64) {
            precondition(phase != next, "a transfer goes from one phase to another")
            phase = next
            phases.append((next.rawValue, now))
        }
    }

    /// The limits in force.
    public let limits: TransferLimits
    /// What was counted.
    public private(set) var counters = TransferCounters()
    /// Transfers that are over, the oldest first.
    public private(set) var records: [TransferRecord] = []
    private let isReceiver: Bool
    private var transfers: [TransferKey: Transfer] = [:]

    /// One side without transfers.
    public init(isReceiver: Bool, limits: TransferLimits = TransferLimits()) {
        self.isReceiver = isReceiver
        self.limits = limits
    }

    /// Transfers that are not over.
    public var openCount: Int { transfers.count }
    /// When `sweep` has something to do at the earliest.
    public var nextExpiry: UInt64? { transfers.values.lazy.map(\.leaseEnds).min() }
    /// How far a transfer is; nil when it is over.
    public func phase(_ key: TransferKey) -> Phase? { transfers[key]?.phase }

    /// Opens a transfer. An earlier generation of the same request is superseded.
    ///
    /// - hold: the receiver's memory.
    /// - Throws: when a generation that is not older is or was here, or as many are open as may.
    public mutating func open(
        _ key: TransferKey, peer: String, manifest: TransferManifest, hold: Hold?, now: UInt64
    ) throws(TransferRefusal) -> [TransferAction] {
        precondition(isReceiver == (hold != nil), "a receiver has memory before it asks, a sender gets it later")
        if let known = newestGeneration(of: key.request), known >= key.generation {
            counters.stale += 1
            throw TransferRefusal("transfer \(key) is not newer than generation \(known), which was here")
        }
        guard transfers.count < limits.open else {
            throw TransferRefusal("\(limits.open) transfers are open, which is the limit")
        }
        let earlier = transfers.keys.filter { $0.request == key.request }.sorted()
        let actions = earlier.flatMap { close($0, .superseded, now: now) }
        transfers[key] = Transfer(
            peer: peer, hold: hold, ledger: SegmentLedger(manifest: manifest), leaseEnds: lease(now),
            phases: [(Phase.waiting.rawValue, now)])
        return actions
    }

    /// Takes in what happened to a transfer.
    public mutating func handle(_ event: TransferEvent, _ key: TransferKey, now: UInt64) -> [TransferAction] {
        guard var transfer = transfers[key] else {
            // Who stops what is over has nothing to be told.
            if case .stop = event { return [] }
            ignore(key)
            return []
        }
        transfer.leaseEnds = max(transfer.leaseEnds, lease(now))
        var actions: [TransferAction] = []
        switch (event, transfer.phase) {
        case (.stop(let end), _): return close(key, end, now: now)
        case (.accepted(let hold), .waiting):
            precondition(hold == nil || transfer.hold == nil, "transfer \(key) has memory already")
            transfer.hold = hold ?? transfer.hold
            transfer.enter(.moving, now: now)
            // A prompt whose state is nothing has nothing to move.
            if transfer.ledger.isComplete { transfer.enter(.moved, now: now) }
        case (.segment(let segment, let byteCount), .moving), (.segment(let segment, let byteCount), .moved):
            do throws(TransferRefusal) { try transfer.ledger.enter(segment, byteCount: byteCount) } catch {
                return close(key, .refused(error.description), now: now)
            }
            counters.byteCount += byteCount
            if transfer.ledger.isComplete { transfer.enter(.moved, now: now) }
            actions = [.copy(key)]
        case (.end(let segments), .moved) where segments == transfer.ledger.segmentCount:
            return close(key, .complete, now: now)
        case (.end, .moving), (.end, .moved):
            return close(key, .refused("it ended with parts missing: \(transfer.ledger.outstanding)"), now: now)
        case (.accepted, .moving), (.accepted, .moved), (.segment, .waiting), (.end, .waiting):
            return close(key, .refused("\(event.name) is not allowed while \(transfer.phase.rawValue)"), now: now)
        }
        transfers[key] = transfer
        return actions
    }

    /// A sign of life from a peer: extends the leases of all its transfers. A late one never shortens any.
    public mutating func heartbeat(peer: String, now: UInt64) {
        for (key, transfer) in transfers where transfer.peer == peer {
            var transfer = transfer
            transfer.leaseEnds = max(transfer.leaseEnds, lease(now))
            transfers[key] = transfer
        }
    }

    /// Ends transfers whose lease has run out.
    public mutating func sweep(now: UInt64) -> [TransferAction] {
        transfers.filter { $0.value.leaseEnds <= now }.keys.sorted().flatMap { close($0, .leaseExpired, now: now) }
    }

    private mutating func close(_ key: TransferKey, _ end: TransferEnd, now: UInt64) -> [TransferAction] {
        guard let transfer = transfers.removeValue(forKey: key) else { return [] }
        counters.ends[end.label, default: 0] += 1
        if records.count >= max(1, limits.records) { records.removeFirst() }
        records.append(
            TransferRecord(
                key: key, peer: transfer.peer, end: end, phases: transfer.phases, ended: now,
                byteCount: transfer.ledger.byteCount, segmentCount: transfer.ledger.segmentCount))
        guard let hold = transfer.hold else { return [.over(key, end)] }
        return [isReceiver && end == .complete ? .received(key, hold) : .endHold(hold), .over(key, end)]
    }

    private func lease(_ now: UInt64) -> UInt64 {
        let (end, overflow) = now.addingReportingOverflow(limits.leaseMicroseconds)
        return overflow ? .max : end
    }

    private mutating func ignore(_ key: TransferKey) {
        if (newestGeneration(of: key.request) ?? 0) > key.generation {
            counters.stale += 1
        } else {
            counters.late += 1
        }
    }

    /// Among those that are here and those there still is a record of.
    private func newestGeneration(of request: TransferKey.Request) -> UInt64? {
        transfers.keys.filter { $0.request == request }.map(\.generation).max()
            ?? records.lazy.filter { $0.key.request == request }.map(\.key.generation).max()
    }
}

extension TransferEvent {
    var name: String {
        switch self {
        case .accepted: "accepted"
        case .segment: "segment"
        case .end: "end"
        case .stop: "stop"
        }
    }
}
