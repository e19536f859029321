import EventLoop
import RPC
import Scheduling
import Serving
import WireProtocol

/// How the router learns who is there, what they hold, and whether they can do their work.
extension InstanceRouter {
    /// Instances are asked how they are this often.
    static let statusMicroseconds: UInt64 = 500_000
    /// Once there is an instance for every part of a request, the others are waited for so long and no longer: one that
    /// is down, or of another checkpoint, must not keep a gateway from serving.
    private static let companyMicroseconds: UInt64 = 5_000_000

    /// Connects to all instances, and waits until there is one for every part of a request that has said what it holds.
    ///
    /// - Throws: `unavailable` with the reason when there is none in time.
    func connect(timeoutMicroseconds: UInt64) async throws(RPCError) {
        for watch in watches { watch.start() }
        await waiters.wait(loop, atMostMicroseconds: timeoutMicroseconds) { !isReady && !isClosed }
        if let outage { throw RPCError(.unavailable, outage) }
        await waiters.wait(loop, atMostMicroseconds: Self.companyMicroseconds) {
            !isClosed && isReady && members.all.contains { $0.generation == nil }
        }
    }

    /// True when a request could be placed.
    var isReady: Bool { controller.outage == nil }

    /// Why no request could be placed, one sentence; nil when one could.
    var outage: String? { controller.outage.map(describe) }

    /// Why a request waits, with what is known of those it waits for.
    func describe(_ deferral: PlacementDeferral) -> String {
        guard case .noInstance(let part) = deferral else { return deferral.description }
        let away = members.all.filter { $0.role.covers(part) && $0.generation == nil }
        let known = away.map { member in
            let reason = (member.refusal ?? member.client.lastError)?.message ?? "it has not answered yet"
            return reason.hasPrefix(member.address) ? reason : "\(member.address): \(reason)"
        }
        let lookups = watches.compactMap(\.lastError?.description)
        let reasons = known + lookups
        let kind =
            members.all.allSatisfy { $0.role == .both } ? "attention" : part == .prefill ? "prefill" : "decode"
        return "no \(kind) instance can be called: "
            + (reasons.isEmpty ? "no address is known yet" : reasons.joined(separator: "; "))
    }

    func take(_ change: Discovery.Change, of instance: InstanceAddress) {
        switch change {
        case .joined(let host):
            if let member = members.join(host, instance) { watch(member) }
        case .left(let host):
            guard let member = members.leave(host, instance) else { return }
            controller.leave(instance: member.rank)
            poll()
            removeIfRetired(member)
        }
    }

    private func watch(_ member: InstanceMember) {
        member.client.onLost = { [weak self, weak member] error in
            guard let self, let member else { return }
            lost(member, error)
        }
        member.client.start()
        Task.immediate(executorPreference: loop) { [weak self] in
            while let self, !isClosed, members.holds(member) {
                // What has not answered yet is asked as soon as it is there.
                await away.wait(loop, atMostMicroseconds: Self.statusMicroseconds) {
                    member.generation != nil && !isClosed
                }
                guard !isClosed, members.holds(member) else { return }
                let asked = loop.now
                do throws(RPCError) {
                    if member.generation == nil {
                        try await member.client.waitReady(timeoutMicroseconds: Self.statusMicroseconds)
                    }
                    try await ask(member)
                    member.refusal = nil
                } catch {
                    member.refusal = error.code == .mismatch && member.client.isReady ? error : nil
                    lost(member, error)
                    if error.code == .deadlineExceeded { member.client.reconnect(ifSilentSince: asked) }
                    // While it is away, waiting for it is pause enough.
                    if error.code != .unavailable { await pause() }
                }
            }
        }
    }

    private func pause() async {
        await withCheckedContinuation { continuation in
            loop.schedule(afterMicroseconds: Self.statusMicroseconds) { continuation.resume() }
        }
    }

    /// Learns what an instance holds and whom it can call; one that restarted joins anew.
    private func ask(_ member: InstanceMember) async throws(RPCError) {
        let client = member.client
        let payload = try await client.call(.status, RPCPayload(), timeoutMicroseconds: 2_000_000)
        let status: StatusReply
        do throws(WireError) { status = try StatusReply(decoding: payload.metadata) } catch {
            throw RPCError(.internal, "status of \(member.address): \(error)")
        }
        guard members.holds(member) else { return }
        guard let capacity = status.capacity, capacity.requests > 0, capacity.requestTokens > 0 else {
            throw RPCError(
                .mismatch, "\(member.address): its status names no capacity, so that nothing is placed on it")
        }
        let generation = client.peerGeneration
        if member.generation != generation, !member.isLeaving {
            let description = InstanceDescription(
                id: member.rank, name: member.address, part: member.role, capacity: capacity, generation: generation)
            if controller.join(description, now: loop.now) { member.generation = generation }
        }
        controller.holds(instance: member.rank, generation: generation, capacity)
        controller.chain(instance: member.rank, generation: generation, fault: Self.fault(status.missing, member))
        poll()
    }

    private static func fault(_ missing: [StatusReply.Missing], _ member: InstanceMember) -> String? {
        guard !missing.isEmpty else { return nil }
        return missing.map { "no \($0.service) can be called by attention \(member.rank): \($0.reason)" }
            .joined(separator: "; ")
    }

    private func lost(_ member: InstanceMember, _ error: RPCError) {
        guard let generation = member.generation else { return }
        member.generation = nil
        away.wake()
        controller.lost(instance: member.rank, generation: generation, because: error.message, now: loop.now)
        poll()
        removeIfRetired(member)
    }

    /// A rank that left is free for another instance when it holds no request any more.
    private func removeIfRetired(_ member: InstanceMember) {
        guard member.isLeaving, !controller.loads.contains(where: { $0.description.id == member.rank }) else { return }
        members.remove(member)
    }
}
