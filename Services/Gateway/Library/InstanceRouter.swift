import EventLoop
import RPC
import Scheduling
import ServiceSupport
import StatePools
import WireProtocol

/// The single controller over all attention instances: it alone decides where a request runs, from one ledger. The
/// decisions are `PlacementController`'s; this asks the instances how they are and passes the answers on. Confined to
/// its loop.
final class InstanceRouter: @unchecked Sendable {
    /// Where one attempt of a request runs.
    struct Route {
        let placement: Placement
        /// The instance that decodes, and that is called.
        let client: RPCClient
        /// `host:port` of the instance that computes the prompt; empty when the first does.
        let prefill: String
        /// `host:port` of the instance that decodes.
        let name: String
    }

    private enum Ticket {
        case waiting
        case placed(Placement)
        case over(RPCError)
    }

    /// Instances are asked how they are this often.
    static let statusMicroseconds: UInt64 = 500_000

    let members: InstanceMembers
    private let loop: any Loop
    private(set) var controller: PlacementController
    private var tickets: [UInt64: Ticket] = [:]
    private var onRestart: [UInt64: @Sendable () -> Void] = [:]
    private let waiters = Waiters()
    private var nextID: UInt64 = 1
    private var wakeTimer: (any LoopTimer)?
    private var isClosed = false

    /// A router over `instances`; `onChange` hears who joins and who leaves a name, for logs.
    init(
        instances: [InstanceAddress], identity: PeerIdentity, secret: [UInt8], policy: PlacementPolicy,
        retries: RetryBudget.Limits, loop: any Loop,
        onChange: @escaping @Sendable (InstanceAddress, Discovery.Change) -> Void = { _, _ in }
    ) {
        self.loop = loop
        var limits = PlacementLimits()
        limits.retries = retries
        controller = PlacementController(limits: limits, policy: policy)
        members = InstanceMembers { host, port in
            RPCClient(
                loop: loop, host: host, port: port, identity: identity, role: "attention",
                fingerprint: identity.fingerprint, secret: secret)
        }
        watches = instances.map { instance in
            AddressWatch(host: instance.address.host, loop: loop) { [weak self] change in
                if AddressWatch.isName(instance.address.host) { onChange(instance, change) }
                self?.take(change, of: instance)
            }
        }
    }

    // MARK: Instances

    private(set) var watches: [AddressWatch] = []

    /// Connects to all instances whose address is known, waits until each has said what it holds, and until there is one
    /// for every part of a request.
    func connect(timeoutMicroseconds: UInt64) async throws(RPCError) {
        let end = loop.now + timeoutMicroseconds
        for watch in watches { watch.start() }
        for member in members.all {
            try await member.client.waitReady(timeoutMicroseconds: timeoutMicroseconds)
            try await ask(member)
        }
        await waiters.wait(loop, atMostMicroseconds: end - min(end, loop.now)) { !isReady && !isClosed }
        guard isReady else { throw RPCError(.unavailable, missing) }
    }

    /// True when a request could be placed.
    var isReady: Bool {
        let live = members.all.filter { $0.generation != nil && !$0.isLeaving }.map(\.role)
        return live.contains(.both) || (live.contains(.prefillOnly) && live.contains(.decodeOnly))
    }

    private var missing: String {
        let known = members.all.map { member in
            "\(member.address): \(member.client.lastError?.message ?? "still connecting")"
        }
        let lookups = watches.compactMap(\.lastError?.description)
        return "no attention instance is there: "
            + (known + lookups + (known.isEmpty && lookups.isEmpty ? ["no address is known yet"] : []))
            .joined(separator: "; ")
    }

    private func take(_ change: Discovery.Change, of instance: InstanceAddress) {
        switch change {
        case .joined(let host):
            if let member = members.join(host, instance) { watch(member) }
        case .left(let host):
            guard let member = members.leave(host, instance) else { return }
            controller.leave(rank: member.rank)
            poll()
            removeIfRetired(member)
        }
    }

    private func watch(_ member: InstanceMember) {
        member.client.start()
        Task.immediate(executorPreference: loop) { [weak self] in
            while let self, !isClosed, members.holds(member) {
                // What has not answered yet is asked as soon as it is there.
                if member.generation != nil { await pause() }
                guard !isClosed, members.holds(member) else { return }
                do throws(RPCError) {
                    if member.generation == nil {
                        try await member.client.waitReady(timeoutMicroseconds: Self.statusMicroseconds)
                    }
                    try await ask(member)
                } catch {
                    lost(member, error)
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

    /// Learns what an instance holds; one that restarted joins anew.
    private func ask(_ member: InstanceMember) async throws(RPCError) {
        let client = member.client
        let payload = try await client.call(.status, RPCPayload(), timeoutMicroseconds: 2_000_000)
        let counters: [String: Int64]
        do throws(WireError) { counters = try StatusReply(decoding: payload.metadata).counters } catch {
            throw RPCError(.internal, "status of \(member.address): \(error)")
        }
        guard members.holds(member) else { return }
        let generation = client.peerGeneration
        if member.generation != generation, !member.isLeaving {
            let description = RankDescription(
                id: member.rank, name: member.address, role: member.role,
                requests: Int(counters["slots"] ?? 0), tokens: Int(counters["pages"] ?? 0) * 64,
                generation: generation)
            if controller.join(description, now: loop.now) { member.generation = generation }
        }
        controller.withhold(
            rank: member.rank, generation: generation, requests: Int(counters["slots_quarantined"] ?? 0),
            tokens: Int(counters["pages_quarantined"] ?? 0) * 64)
        poll()
    }

    private func lost(_ member: InstanceMember, _ error: RPCError) {
        guard let generation = member.generation else { return }
        member.generation = nil
        controller.lost(rank: member.rank, generation: generation, because: error.message, now: loop.now)
        poll()
        removeIfRetired(member)
    }

    /// A rank that left is free for another instance when it holds no request any more.
    private func removeIfRetired(_ member: InstanceMember) {
        guard member.isLeaving, !controller.loads.contains(where: { $0.description.id == member.rank }) else { return }
        members.remove(member)
    }

    // MARK: Requests

    /// Queues a request; its route comes from `next`, and `ended` must follow.
    func submit(_ prompt: [UInt32], maximumTokens: Int, priority: Int) throws(RPCError) -> UInt64 {
        let id = nextID
        nextID += 1
        let request = PlacementRequest(
            id: id, promptTokens: prompt.count, maximumTokens: maximumTokens, prefix: PrefixHash.blocks(of: prompt),
            priority: priority, waitUntil: nil)
        tickets[id] = .waiting
        switch controller.submit(request, now: loop.now) {
        case .admitted(let placement): tickets[id] = .placed(placement)
        case .deferred: break
        case .rejected(let refusal):
            tickets[id] = nil
            throw Self.error(refusal)
        }
        poll()
        return id
    }

    private static func error(_ refusal: PlacementRefusal) -> RPCError {
        let code: ErrorCode =
            switch refusal {
            case .queueFull: .notAccepted
            case .neverFits: .limitExceeded
            case .duplicate, .invalid: .invalidArgument
            }
        return RPCError(code, refusal.description)
    }

    /// The route of the request's next attempt; waits until `deadline` while there is no room anywhere.
    func next(_ id: UInt64, until deadline: UInt64) async throws(RPCError) -> Route {
        if case .waiting = tickets[id] {
            await withTaskCancellationHandler {
                let left = deadline > loop.now ? deadline - loop.now : 0
                await waiters.wait(loop, atMostMicroseconds: left) {
                    guard case .waiting = tickets[id], !Task.isCancelled else { return false }
                    return true
                }
            } onCancel: {
                loop.execute { [waiters] in waiters.wake() }
            }
        }
        switch tickets[id] {
        case .placed(let placement): return try route(placement)
        case .over(let error): throw error
        case .waiting where !Task.isCancelled:
            throw RPCError(.deadlineExceeded, "the request's time was over before an instance had room")
        case .waiting, nil: throw RPCError(.cancelled, "the request was cancelled")
        }
    }

    private func route(_ placement: Placement) throws(RPCError) -> Route {
        guard let decode = members[placement.decode], let prefill = members[placement.prefill] else {
            throw RPCError(.internal, "the request was placed on an instance that is gone")
        }
        return Route(
            placement: placement, client: decode.client,
            prefill: placement.prefill == placement.decode ? "" : prefill.address,
            name: decode.address)
    }

    /// Calls `action` when the attempt is moved elsewhere, or given up, although its stream has not failed yet.
    func onRestart(_ id: UInt64, _ action: (@Sendable () -> Void)?) { onRestart[id] = action }

    /// The attempt has sent its first token.
    func firstToken(_ id: UInt64, _ route: Route) {
        controller.firstToken(id: id, attempt: route.placement.attempt)
        poll()
    }

    /// The attempt's stream failed; the request is placed again or given up, and `next` says which.
    func broke(_ id: UInt64, _ route: Route, _ error: RPCError) {
        guard case .placed(let placement) = tickets[id], placement.attempt == route.placement.attempt else { return }
        tickets[id] = .waiting
        // a decode instance that is there reports what its prefill instance did
        let isDecodeFault = route.prefill.isEmpty || !route.client.isReady
        let culprit = isDecodeFault ? placement.decode : placement.prefill
        // An instance that has no room is not broken.
        controller.broke(
            id: id, attempt: route.placement.attempt, rank: error.code == .notAccepted ? nil : culprit,
            because: error.message, now: loop.now)
        poll()
    }

    /// True when the request has left this route, or is about to.
    func isMoved(_ id: UInt64, _ route: Route) -> Bool {
        guard case .placed(let placement) = tickets[id] else { return true }
        return placement.attempt != route.placement.attempt
    }

    /// Microseconds of the loop's clock.
    var now: UInt64 { loop.now }

    /// The request is over, whatever way.
    func ended(_ id: UInt64) {
        tickets[id] = nil
        onRestart[id] = nil
        controller.ended(id: id)
        poll()
    }

    private func poll() {
        for action in controller.poll(now: loop.now) { perform(action) }
        waiters.wake()
        wakeTimer?.cancel()
        guard let next = controller.nextWake else { return }
        wakeTimer = loop.schedule(afterMicroseconds: next > loop.now ? next - loop.now : 1) { [weak self] in
            self?.poll()
        }
    }

    private func perform(_ action: PlacementAction) {
        switch action {
        case .place(let id, let placement): if tickets[id] != nil { tickets[id] = .placed(placement) }
        case .restart(let id, _):
            guard tickets[id] != nil else { return }
            tickets[id] = .waiting
            onRestart[id]?()
        case .expired(let id, let deferral):
            finish(id, RPCError(.notAccepted, "no instance had room in time: \(deferral)"))
        case .failed(let id, let reason): finish(id, RPCError(.unavailable, reason))
        case .overBudget(let id, let reason):
            let seconds = RetryBudget.windowMicroseconds / 1_000_000
            let advice = "so much has failed that it is not tried again: come back in \(seconds) seconds"
            finish(id, RPCError(.retryBudgetSpent, "\(reason); \(advice)"))
        case .retired(let rank): if let member = members[rank] { members.remove(member) }
        }
    }

    private func finish(_ id: UInt64, _ error: RPCError) {
        guard tickets[id] != nil else { return }
        tickets[id] = .over(error)
        onRestart[id]?()
    }

    /// Ends all connections.
    func close() {
        isClosed = true
        wakeTimer?.cancel()
        for watch in watches { watch.close() }
        members.close()
    }
}
