import EventLoop
import RPC
import Scheduling

/// One side's transfers with what the registry's actions act on: calls that can be ended, and timers for the leases.
/// Confined to its loop.
final class TransferDesk<State: TransferState>: @unchecked Sendable {
    /// The call behind a transfer.
    final class Call: @unchecked Sendable {
        /// Ends the call; set by whoever makes it.
        var cancel: () -> Void = {}
        /// Why the transfer ended, once it has.
        fileprivate(set) var end: TransferEnd?
    }

    /// The states, leases, counters and records.
    private(set) var registry: TransferRegistry<State>
    private let loop: any Loop
    private let onRecord: @Sendable (TransferRecord) -> Void
    private var calls: [TransferKey: Call] = [:]
    private var timer: (any LoopTimer)?
    private var seen = 0

    init(limits: TransferLimits, loop: any Loop, onRecord: @escaping @Sendable (TransferRecord) -> Void) {
        registry = TransferRegistry(limits: limits)
        self.loop = loop
        self.onRecord = onRecord
    }

    /// Opens a transfer; throws when it is stale or one too many.
    func open(_ key: TransferKey, peer: String) throws(RPCError) -> Call {
        let actions: [TransferAction]
        do throws(TransferRefusal) { actions = try registry.open(key, peer: peer, now: loop.now) } catch {
            throw RPCError(.notAccepted, error.description)
        }
        let call = Call()
        calls[key] = call
        perform(actions)
        return call
    }

    /// Records an event; throws when the transfer is over or its state does not allow it.
    func handle(_ event: TransferEvent, _ key: TransferKey, bytes: Int = 0) throws(RPCError) {
        switch registry.handle(event, key, bytes: bytes, now: loop.now) {
        case .done(let actions):
            perform(actions)
            if registry.state(key) == nil { calls[key] = nil }
        case .ignored: throw RPCError(.cancelled, "transfer \(key) is over")
        case .illegal(let actions):
            perform(actions)
            throw RPCError(.internal, "transfer \(key): \(event.rawValue) is not allowed now")
        }
    }

    /// Reads or writes the transfer's memory; throws when it must not be touched any more.
    func access<Value>(_ key: TransferKey, _ body: () -> Value) throws(RPCError) -> Value {
        guard registry.beginAccess(key) else { throw RPCError(.cancelled, "transfer \(key) is over") }
        let value = body()
        perform(registry.endAccess(key, now: loop.now))
        return value
    }

    /// A sign of life from a peer.
    func heartbeat(peer: String) { registry.heartbeat(peer: peer, now: loop.now) }

    /// Ends a transfer, in whatever state. The first reason stands. Accesses never span a suspension, so nothing reads
    /// or writes the memory when this returns.
    func stop(_ key: TransferKey, _ reason: TransferEnd) {
        perform(registry.stop(key, reason, now: loop.now))
        calls[key] = nil
    }

    private func perform(_ actions: [TransferAction]) {
        for action in actions {
            switch action {
            case .endCall(let key, let reason):
                calls[key]?.end = reason
                calls[key]?.cancel()
            case .finish(let key): calls[key]?.end = .complete
            case .endHold: break
            }
        }
        tellRecords()
        schedule()
    }

    private func tellRecords() {
        let ended = registry.counters.ends.values.reduce(0, +)
        for record in registry.records.suffix(ended - seen) { onRecord(record) }
        seen = ended
    }

    private func schedule() {
        timer?.cancel()
        guard let next = registry.nextExpiry else { return }
        timer = loop.schedule(afterMicroseconds: next > loop.now ? next - loop.now : 1) { [weak self] in
            guard let self else { return }
            perform(registry.sweep(now: loop.now))
        }
    }
}
