import EventLoop
import RPC
import Scheduling
import ServiceSupport
import StatePools
import WireProtocol

/// An attention instance as the gateway is told of it.
public struct InstanceAddress: Sendable, Equatable {
    /// Which part of a request it takes.
    public let role: RequestRole
    /// Where it listens.
    public let address: HostPort

    /// An instance.
    public init(role: RequestRole, address: HostPort) {
        self.role = role
        self.address = address
    }
}

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

    let clients: [RPCClient]
    private let instances: [InstanceAddress]
    private let loop: any Loop
    private var controller: PlacementController
    private var tickets: [UInt64: Ticket] = [:]
    private var onRestart: [UInt64: @Sendable () -> Void] = [:]
    private var generations: [UInt64?]
    private let waiters = Waiters()
    private var nextID: UInt64 = 1
    private var wakeTimer: (any LoopTimer)?
    private var isClosed = false

    init(
        instances: [InstanceAddress], identity: PeerIdentity, secret: [UInt8], policy: PlacementPolicy, loop: any Loop
    ) {
        self.instances = instances
        self.loop = loop
        controller = PlacementController(policy: policy)
        generations = Array(repeating: nil, count: instances.count)
        clients = instances.map { instance in
            RPCClient(
                loop: loop, host: instance.address.host, port: instance.address.port, identity: identity,
                role: "attention", fingerprint: identity.fingerprint, secret: secret)
        }
    }

    // MARK: Instances

    /// Connects to all instances and waits until each has said what it holds.
    func connect(timeoutMicroseconds: UInt64) async throws(RPCError) {
        for client in clients { client.start() }
        for (rank, client) in clients.enumerated() {
            try await client.waitReady(timeoutMicroseconds: timeoutMicroseconds)
            try await ask(rank)
        }
        for rank in clients.indices { watch(rank) }
    }

    /// True when a request could be placed.
    var isReady: Bool {
        let live = instances.indices.filter { generations[$0] != nil }.map { instances[$0].role }
        return live.contains(.both) || (live.contains(.prefillOnly) && live.contains(.decodeOnly))
    }

    private func watch(_ rank: Int) {
        Task.immediate(executorPreference: loop) { [weak self] in
            while let self, !isClosed {
                await pause()
                guard !isClosed else { return }
                do throws(RPCError) { try await ask(rank) } catch { lost(rank, error) }
            }
        }
    }

    private func pause() async {
        await withCheckedContinuation { continuation in
            loop.schedule(afterMicroseconds: Self.statusMicroseconds) { continuation.resume() }
        }
    }

    /// Learns what an instance holds; one that restarted joins anew.
    private func ask(_ rank: Int) async throws(RPCError) {
        let client = clients[rank]
        let payload = try await client.call(.status, RPCPayload(), timeoutMicroseconds: 2_000_000)
        let counters: [String: Int64]
        do throws(WireError) { counters = try StatusReply(decoding: payload.metadata).counters } catch {
            throw RPCError(.internal, "status of \(instances[rank].address): \(error)")
        }
        let generation = client.peerGeneration
        if generations[rank] != generation {
            let description = RankDescription(
                id: rank, name: "\(instances[rank].address)", role: instances[rank].role,
                requests: Int(counters["slots"] ?? 0), tokens: Int(counters["pages"] ?? 0) * 64,
                generation: generation)
            if controller.join(description, now: loop.now) { generations[rank] = generation }
        }
        controller.withhold(
            rank: rank, generation: generation, requests: Int(counters["slots_quarantined"] ?? 0),
            tokens: Int(counters["pages_quarantined"] ?? 0) * 64)
        poll()
    }

    private func lost(_ rank: Int, _ error: RPCError) {
        guard let generation = generations[rank] else { return }
        generations[rank] = nil
        controller.lost(rank: rank, generation: generation, because: error.message, now: loop.now)
        poll()
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
            case .duplicate, .invalid, .split: .invalidArgument
            }
        return RPCError(code, refusal.description)
    }

    /// The route of the request's next attempt; waits while there is no room anywhere.
    func next(_ id: UInt64) async throws(RPCError) -> Route {
        await withTaskCancellationHandler {
            await waiters.wait {
                guard case .waiting = tickets[id], !Task.isCancelled else { return false }
                return true
            }
        } onCancel: {
            loop.execute { [waiters] in waiters.wake() }
        }
        switch tickets[id] {
        case .placed(let placement): return route(placement)
        case .over(let error): throw error
        case .waiting, nil: throw RPCError(.cancelled, "the request was cancelled")
        }
    }

    private func route(_ placement: Placement) -> Route {
        Route(
            placement: placement, client: clients[placement.decode],
            prefill: placement.prefill == placement.decode ? "" : "\(instances[placement.prefill].address)",
            name: "\(instances[placement.decode].address)")
    }

    /// Calls `action` when the attempt is moved elsewhere although its stream has not failed yet.
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
        case .retired: break
        }
    }

    private func finish(_ id: UInt64, _ error: RPCError) {
        if tickets[id] != nil { tickets[id] = .over(error) }
    }

    /// What the ledger holds, for `status` and metrics.
    var counters: [String: Int64] {
        var all = [
            "requests_placed": Int64(controller.placedCount), "requests_queued": Int64(controller.waitingCount),
        ]
        for load in controller.loads {
            let breaker: Int64 =
                switch load.breaker {
                case .closed: 0
                case .halfOpen: 1
                case .open: 2
                }
            let figures: [String: Int64] = [
                "up": load.isServing ? 1 : 0, "placed_requests": Int64(load.requests), "tokens": Int64(load.tokens),
                "requests_limit": Int64(load.description.requests), "tokens_limit": Int64(load.description.tokens),
                "breaker_state": breaker,
            ]
            for (name, value) in figures { all["instance\(load.description.id).\(name)"] = value }
        }
        return all
    }

    /// Ends all connections.
    func close() {
        isClosed = true
        wakeTimer?.cancel()
        for client in clients { client.close() }
    }
}
