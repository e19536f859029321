/// What the owner of a transfer has to do. Each is returned once.
public enum TransferAction: Sendable, Hashable {
    /// End the call, so that the other side learns of it.
    case endCall(TransferKey, TransferEnd)
    /// The memory is quiescent: end the transfer's hold on it.
    case endHold(TransferKey)
    /// Everything moved: the request may decode (receiver), or its memory go (sender).
    case finish(TransferKey)
}

/// What became of an event.
public enum TransferOutcome: Sendable, Equatable {
    /// It was legal; do this.
    case done([TransferAction])
    /// It came for an earlier generation, a transfer that is over, or one that never was. Do nothing with what came.
    case ignored
    /// The state does not allow it; the transfer was stopped.
    case illegal([TransferAction])
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

/// All transfers of one side of one instance: their states, leases, counters and, when they are over, their records.
///
/// Memory is touched only between `beginAccess` and `endAccess`. A transfer that is stopped while an access runs stays
/// in `stopping` until the access ends; only then `endHold` is returned. So a hold ends on proof, never on hope.
public struct TransferRegistry<State: TransferState>: Sendable {
    private struct Transfer: Sendable {
        let peer: String
        var state = State.initial
        var phases: [(state: String, entered: UInt64)]
        var end: TransferEnd?
        var accesses = 0
        var byteCount = 0
        var segmentCount = 0
    }

    /// The limits in force.
    public let limits: TransferLimits
    /// What was counted.
    public private(set) var counters = TransferCounters()
    /// Transfers that are over, the oldest first.
    public private(set) var records: [TransferRecord] = []
    private var transfers: [TransferKey: Transfer] = [:]
    private var current: [TransferKey.Request: UInt64] = [:]
    private var leases = LeaseTable<TransferKey>()

    /// A registry without transfers.
    public init(limits: TransferLimits = TransferLimits()) { self.limits = limits }

    /// Transfers that are not over.
    public var openCount: Int { transfers.count }
    /// When `sweep` has something to do at the earliest.
    public var nextExpiry: UInt64? { leases.nextExpiry }

    /// State of a transfer that is not over.
    public func state(_ key: TransferKey) -> State? { transfers[key]?.state }

    /// Opens a transfer. An earlier generation of the same request is superseded; an older or equal one than is here is
    /// refused, and so is one above the limit.
    public mutating func open(
        _ key: TransferKey, peer: String, now: UInt64
    ) throws(TransferRefusal) -> [TransferAction] {
        if let known = newestGeneration(of: key.request), known >= key.generation {
            counters.stale += 1
            throw TransferRefusal("transfer \(key) is not newer than generation \(known), which was here")
        }
        guard transfers.count < limits.open else {
            throw TransferRefusal("\(limits.open) transfers are open, which is the limit")
        }
        let earlier = transfers.keys.filter { $0.request == key.request }.sorted()
        let actions = earlier.flatMap { stop($0, .superseded, now: now) }
        current[key.request] = key.generation
        transfers[key] = Transfer(peer: peer, phases: [(State.initial.rawValue, now)])
        leases.extend(key, now: now, by: limits.leaseMicroseconds)
        return actions
    }

    /// An event of a transfer, with the bytes that moved. Counts as a sign of life.
    public mutating func handle(
        _ event: TransferEvent, _ key: TransferKey, bytes: Int = 0, now: UInt64
    ) -> TransferOutcome {
        guard let transfer = transfers[key], !transfer.state.isOver else {
            ignore(key)
            return .ignored
        }
        guard event != .stop, event != .quiescent, let next = transfer.state.next(event),
            next != .complete || transfer.accesses == 0
        else {
            counters.illegal += 1
            return .illegal(stop(key, .illegal(event: event, state: transfer.state.rawValue), now: now))
        }
        leases.extend(key, now: now, by: limits.leaseMicroseconds)
        if event == .segment || event == .lastSegment {
            transfers[key]?.segmentCount += 1
            transfers[key]?.byteCount += bytes
            counters.byteCount += bytes
        }
        move(key, to: next, now: now)
        guard next == .complete else { return .done([]) }
        // The memory's next reader or writer is the request itself, so the hold ends with the transfer.
        close(key, .complete, now: now)
        return .done([.finish(key), .endHold(key)])
    }

    /// Ends a transfer that is not over. Idempotent: the first reason stands.
    public mutating func stop(_ key: TransferKey, _ reason: TransferEnd, now: UInt64) -> [TransferAction] {
        guard let transfer = transfers[key], let next = transfer.state.next(.stop) else { return [] }
        transfers[key]?.end = reason
        leases.drop(key)
        move(key, to: next, now: now)
        return [.endCall(key, reason)] + settle(key, now: now)
    }

    /// Asks to read or write the transfer's memory now. False, and counted, when the transfer is over or of an earlier
    /// generation: then the bytes must not be touched. Every true needs its `endAccess`.
    public mutating func beginAccess(_ key: TransferKey) -> Bool {
        guard let transfer = transfers[key], !transfer.state.isOver else {
            ignore(key)
            return false
        }
        transfers[key]?.accesses += 1
        return true
    }

    /// The read or write is over: the proof a stopped transfer waits for.
    public mutating func endAccess(_ key: TransferKey, now: UInt64) -> [TransferAction] {
        guard let transfer = transfers[key], transfer.accesses > 0 else { return [] }
        transfers[key]?.accesses -= 1
        return settle(key, now: now)
    }

    /// A sign of life from a peer: extends the leases of all its transfers.
    public mutating func heartbeat(peer: String, now: UInt64) {
        for (key, transfer) in transfers where transfer.peer == peer && !transfer.state.isOver {
            leases.extend(key, now: now, by: limits.leaseMicroseconds)
        }
    }

    /// Ends every transfer with a peer that is gone.
    public mutating func peerLost(_ peer: String, why: String, now: UInt64) -> [TransferAction] {
        transfers.filter { $0.value.peer == peer }.keys.sorted()
            .flatMap { stop($0, .peerFailed(why), now: now) }
    }

    /// Ends transfers whose lease has run out, and orphans: those whose request the owner does not know any more.
    public mutating func sweep(now: UInt64, isOwned: (TransferKey) -> Bool = { _ in true }) -> [TransferAction] {
        let orphans = transfers.keys.filter { !isOwned($0) }.sorted()
        return leases.expired(now: now).flatMap { stop($0, .leaseExpired, now: now) }
            + orphans.flatMap { stop($0, .orphaned, now: now) }
    }

    /// Transfers that have been in one state for longer than `microseconds`, a line each.
    public func stuck(longerThan microseconds: UInt64, now: UInt64) -> [String] {
        transfers.compactMap { key, transfer in
            guard let phase = transfer.phases.last, phase.entered + microseconds < now else { return nil }
            return "transfer \(key) with \(transfer.peer): \(phase.state) for \((now - phase.entered) / 1000) ms, "
                + "\(transfer.byteCount) bytes in \(transfer.segmentCount) segments, \(transfer.accesses) accesses"
        }.sorted()
    }

    private mutating func settle(_ key: TransferKey, now: UInt64) -> [TransferAction] {
        guard let transfer = transfers[key], transfer.state == .stopping, transfer.accesses == 0,
            let next = transfer.state.next(.quiescent)
        else { return [] }
        move(key, to: next, now: now)
        close(key, transfer.end ?? .cancelled, now: now)
        return [.endHold(key)]
    }

    private mutating func move(_ key: TransferKey, to next: State, now: UInt64) {
        guard let state = transfers[key]?.state else { return }
        counters.transitions[.init(from: state.rawValue, to: next.rawValue), default: 0] += 1
        guard next != state else { return }
        transfers[key]?.state = next
        transfers[key]?.phases.append((next.rawValue, now))
    }

    private mutating func close(_ key: TransferKey, _ end: TransferEnd, now: UInt64) {
        guard let transfer = transfers.removeValue(forKey: key) else { return }
        leases.drop(key)
        if current[key.request] == key.generation { current[key.request] = nil }
        counters.ends[end.label, default: 0] += 1
        if records.count >= max(1, limits.records) { records.removeFirst() }
        records.append(
            TransferRecord(
                key: key, peer: transfer.peer, end: end, phases: transfer.phases, ended: now,
                byteCount: transfer.byteCount, segmentCount: transfer.segmentCount))
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
        current[request] ?? records.lazy.filter { $0.key.request == request }.map(\.key.generation).max()
    }
}

/// The decode side's transfers.
public typealias IncomingTransfers = TransferRegistry<IncomingState>
/// The prefill side's transfers.
public typealias OutgoingTransfers = TransferRegistry<OutgoingState>
