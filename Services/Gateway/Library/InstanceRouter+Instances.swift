import EventLoop
import GatewayCore
import RPC
import Scheduling
import ServiceSupport
import Serving
import WireProtocol

/// How the router learns who is there, what they hold, and whether they can do their work.
extension InstanceRouter {
    /// Instances are asked how they are this often.
    private static let statusMicroseconds: UInt64 = 500_000
    /// Once there is an instance for every part of a request, the others are waited for so long and no longer: one that
    /// is down, or of another checkpoint, must not keep a gateway from serving.
    private static let companyMicroseconds: UInt64 = 5_000_000

    /// Connects to all instances, and waits until there is one for every part of a request that has said what it holds.
    ///
    /// - Throws: `unavailable` with the reason when there is none in time.
    func connect(timeoutMicroseconds: UInt64) async throws(RPCError) {
        state.watches = instances.map(watch)
        for watch in state.watches { watch.start() }
        await waiters.wait(loop, atMostMicroseconds: timeoutMicroseconds) { !isReady && !state.isClosed }
        if let outage { throw RPCError(.unavailable, outage) }
        await waiters.wait(loop, atMostMicroseconds: Self.companyMicroseconds) {
            !state.isClosed && isReady && state.fleet.members.contains { $0.generation == nil }
        }
    }

    // MARK: Who is there

    private func watch(_ instance: InstanceAddress) -> AddressWatch {
        AddressWatch(host: instance.address.host, loop: loop) { [weak self, onChange] change in
            if AddressWatch.isName(instance.address.host) { onChange(instance, change) }
            self?.take(change, of: instance)
        }
    }

    private func take(_ change: Discovery.Change, of instance: InstanceAddress) {
        let port = instance.address.port
        switch change {
        case .joined(let host): report(.found(instance.role, address: SocketAddress.text(host, port)))
        case .left(let host): report(.vanished(instance.role, address: SocketAddress.text(host, port)))
        }
    }

    /// Connects to an instance and asks it how it is for as long as it is there.
    func connect(_ instance: Int, _ client: RPCClient) {
        state.clients[instance] = client
        client.onLost = { [weak self, weak client] error in
            guard let self, let client, holds(instance, client) else { return }
            failed(instance, error, isConnected: false)
        }
        client.start()
        Task.immediate(executorPreference: loop) { [weak self] in
            while let self, !state.isClosed, holds(instance, client) {
                // What has not answered yet is asked as soon as it is there.
                await away.wait(loop, atMostMicroseconds: Self.statusMicroseconds) {
                    state.fleet[instance]?.generation != nil && !state.isClosed
                }
                guard !state.isClosed, holds(instance, client) else { return }
                let asked = loop.now
                do throws(RPCError) {
                    if state.fleet[instance]?.generation == nil {
                        try await client.waitReady(timeoutMicroseconds: Self.statusMicroseconds)
                    }
                    try await ask(instance, client)
                } catch {
                    guard holds(instance, client) else { return }
                    failed(instance, error, isConnected: client.isReady)
                    if error.code == .deadlineExceeded { client.reconnect(ifSilentSince: asked) }
                    // While it is away, waiting for it is pause enough.
                    guard error.code != .unavailable else { continue }
                    await away.wait(loop, atMostMicroseconds: Self.statusMicroseconds) { !state.isClosed }
                }
            }
        }
    }

    /// True until the instance is gone, though another may have its number then.
    private func holds(_ instance: Int, _ client: RPCClient) -> Bool { state.clients[instance] === client }

    private func failed(_ instance: Int, _ error: RPCError, isConnected: Bool) {
        report(.failed(instance: instance, Failure(error), isConnected: isConnected))
        away.wake()
    }

    /// Learns what an instance holds and whom it can call.
    private func ask(_ instance: Int, _ client: RPCClient) async throws(RPCError) {
        let payload = try await client.call(.status, RPCPayload(), timeoutMicroseconds: 2_000_000)
        let status: StatusReply
        do throws(WireError) { status = try StatusReply(decoding: payload.metadata) } catch {
            throw RPCError(.internal, "status of \(name(of: instance)): \(error)")
        }
        guard holds(instance, client) else { return }
        guard let capacity = status.capacity, capacity.requests > 0, capacity.requestTokens > 0 else {
            throw RPCError(
                .mismatch, "\(name(of: instance)): its status names no capacity, so that nothing is placed on it")
        }
        let faults = status.missing.map { "no \($0.service) can be called by attention \(instance): \($0.reason)" }
        report(
            .answered(
                instance: instance, generation: client.peerGeneration, capacity,
                fault: faults.isEmpty ? nil : faults.joined(separator: "; ")))
    }

    // MARK: What is said of them

    /// True when a request could be placed.
    var isReady: Bool { state.fleet.placement.outage == nil }

    /// Why no request could be placed, one sentence; nil when one could.
    var outage: String? { state.fleet.placement.outage.map(describe) }

    /// Why a request waits, with what is known of those it waits for.
    func describe(_ deferral: PlacementDeferral) -> String {
        state.fleet.describe(deferral, lookups: lookups) { state.clients[$0]?.lastError?.message }
    }

    private var lookups: [String] { state.watches.compactMap(\.lastError?.description) }

    /// Instances that have not said yet what they hold; enough are there when a request could be placed.
    var waiting: PeerWait.Group {
        let absent = state.fleet.members.filter { $0.generation == nil }.map { member in
            let client = client(member.instance)
            return PeerWait.Absent(
                "attention instance at \(member.address)",
                member.refusal.map { RPCError($0) } ?? (client.isReady ? nil : client.lastError))
        }
        guard state.fleet.members.isEmpty else { return PeerWait.Group(isServed: isReady, absent: absent) }
        let reason = lookups.isEmpty ? "no address is known yet" : lookups.joined(separator: "; ")
        return PeerWait.Group(
            isServed: false, absent: [PeerWait.Absent("attention instances", RPCError(.unavailable, reason))])
    }

    /// What the ledger holds, for `status` and metrics.
    var counters: [String: Int64] {
        let placement = state.fleet.placement
        var all = [
            "requests_placed": Int64(placement.placedCount), "requests_queued": Int64(placement.waitingCount),
            "retries_refused": Int64(clamping: placement.retriesRefused),
            "retries_left": Int64(placement.retriesLeft(now: loop.now)),
        ]
        for load in placement.loads {
            let breaker: Int64 =
                switch load.breaker {
                case .closed: 0
                case .halfOpen: 1
                case .open: 2
                }
            let figures: [String: Int64] = [
                "up": load.isServing && load.fault == nil ? 1 : 0, "placed_requests": Int64(load.requests),
                "tokens": Int64(load.tokens),
                "requests_limit": Int64(load.description.capacity.requests),
                "tokens_limit": Int64(load.description.capacity.tokens),
                "breaker_state": breaker,
            ]
            for (name, value) in figures { all["instance\(load.description.id).\(name)"] = value }
        }
        return all
    }
}
