import EventLoop
import RPC
import Scheduling
import StatePools

/// The shell of one side's `Transfers`: the calls that can be ended, the timer of the leases, and the engine, which is told
/// when a transfer's hold ends. Confined to its loop, which opening, events and stopping require.
final class OpenTransfers: @unchecked Sendable {
    /// The call behind a transfer.
    final class Call {
        let key: TransferKey
        /// Ends the call; set by whoever makes it.
        var cancel: () -> Void = {}
        /// Why the transfer ended, once it has.
        fileprivate(set) var end: TransferEnd?

        fileprivate init(_ key: TransferKey) { self.key = key }
    }

    /// How far each is, its lease and its memory; counters and records.
    private(set) var core: Transfers
    private let loop: any Loop
    private let endHold: (Hold) -> Void
    private let onRecord: @Sendable (TransferRecord) -> Void
    private var calls: [TransferKey: Call] = [:]
    private var timer: (any LoopTimer)?
    private var recordsTold = 0

    /// - endHold: called when nothing is read or written through a hold any more.
    init(
        _ core: Transfers, loop: any Loop, endHold: @escaping (Hold) -> Void,
        onRecord: @escaping @Sendable (TransferRecord) -> Void
    ) {
        self.core = core
        self.loop = loop
        self.endHold = endHold
        self.onRecord = onRecord
    }

    /// Opens a transfer.
    ///
    /// - Throws: when it is stale or one too many; then the hold, if there is one, stays the caller's.
    func open(
        _ key: TransferKey, peer: String, manifest: TransferManifest, hold: Hold? = nil
    ) throws(RPCError) -> Call {
        loop.preconditionIsolated()
        let actions: [TransferAction]
        do throws(TransferRefusal) {
            actions = try core.open(key, peer: peer, manifest: manifest, hold: hold, now: loop.now)
        } catch {
            throw RPCError(.notAccepted, error.description)
        }
        let call = Call(key)
        perform(actions)
        calls[key] = call
        return call
    }

    /// Takes in what happened to a transfer. `copy` is called when the event's bytes may be read or written.
    ///
    /// - Returns: the hold that a receiver's request decodes under, once everything is there.
    /// - Throws: when the transfer is over, but for its good end.
    @discardableResult
    func handle(_ event: TransferEvent, _ call: Call, copy: () -> Void = {}) throws(RPCError) -> Hold? {
        loop.preconditionIsolated()
        let wasOver = call.end != nil
        let received = perform(core.handle(event, call.key, now: loop.now), copy: copy)
        switch call.end {
        case nil: return nil
        case .complete? where !wasOver: return received
        case .refused(let why)?: throw RPCError(.internal, why)
        case let end?: throw RPCError(.cancelled, "transfer \(call.key) is over: \(end)")
        }
    }

    /// A sign of life from a peer.
    func heartbeat(peer: String) { core.heartbeat(peer: peer, now: loop.now) }

    /// Ends a transfer, however far it is. The first reason stands.
    func stop(_ call: Call, _ reason: TransferEnd) {
        loop.preconditionIsolated()
        perform(core.handle(.stop(reason), call.key, now: loop.now))
    }

    @discardableResult
    private func perform(_ actions: [TransferAction], copy: () -> Void = {}) -> Hold? {
        var received: Hold?
        for action in actions {
            switch action {
            case .copy: copy()
            case .endHold(let hold): endHold(hold)
            case .received(_, let hold): received = hold
            case .over(let key, let end):
                guard let call = calls.removeValue(forKey: key) else { continue }
                call.end = end
                if end != .complete { call.cancel() }
            }
        }
        tellRecords()
        schedule()
        return received
    }

    private func tellRecords() {
        let ended = core.counters.ends.values.reduce(0, +)
        for record in core.records.suffix(ended - recordsTold) { onRecord(record) }
        recordsTold = ended
    }

    private func schedule() {
        timer?.cancel()
        guard let next = core.nextExpiry else { return }
        timer = loop.schedule(afterMicroseconds: next > loop.now ? next - loop.now : 1) { [weak self] in
            guard let self else { return }
            perform(core.sweep(now: loop.now))
        }
    }
}
