import EventLoop
import RPC
import Scheduling
import ServiceSupport
import Serving
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

    /// Tokens a request is expected to generate, at most; attention instances expect the same.
    static let expectedTokens = 4096

    let members: InstanceMembers
    let loop: any Loop
    var controller: PlacementController
    private(set) var watches: [AddressWatch] = []
    private var tickets: [UInt64: Ticket] = [:]
    private var onRestart: [UInt64: @Sendable () -> Void] = [:]
    /// The clocks of attempts that stream.
    private var clocks: [UInt64: ProgressClock] = [:]
    private var clockTimer: (any LoopTimer)?
    let waiters = Waiters()
    /// Those who ask an instance wait here for the next time.
    let away = Waiters()
    private var nextID: UInt64 = 1
    private var wakeTimer: (any LoopTimer)?
    private(set) var isClosed = false

    /// A router over `instances`; `onChange` hears who joins and who leaves a name, for logs.
    init(
        instances: [InstanceAddress], identity: PeerIdentity, secret: [UInt8], policy: PlacementPolicy,
        retries: RetryBudget.Limits, loop: any Loop,
        onChange: @escaping @Sendable (InstanceAddress, Discovery.Change) -> Void = { _, _ in }
    ) {
        self.loop = loop
        var limits = PlacementLimits()
        limits.retries = retries
        limits.expectedTokens = Self.expectedTokens
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

    /// Tokens of prompt and answer that the largest instance holds for one request; nil when none is there.
    var largestRequest: Int? { controller.largestRequest }

    // MARK: Requests

    /// Queues a request; its route comes from `next`, and `ended` must follow.
    func submit(_ request: Request) throws(RPCError) -> UInt64 {
        let id = nextID
        nextID += 1
        let placed = Request(
            id: id, promptCount: request.promptCount, maximumTokens: request.maximumTokens, priority: request.priority)
        tickets[id] = .waiting
        switch controller.submit(placed, prefix: PrefixHash.blocks(of: request.tokens), now: loop.now) {
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
            case .outage: .unavailable
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

    // MARK: Headway

    /// A stream may stand still for so long before it is taken elsewhere.
    static let stallMicroseconds: UInt64 = 30_000_000
    /// Clocks are looked at this often.
    private static let clockMicroseconds: UInt64 = 1_000_000

    /// The attempt's stream is open; `unwatch` must follow.
    func watch(_ id: UInt64) {
        clocks[id] = ProgressClock(limitMicroseconds: Self.stallMicroseconds)
        if clockTimer == nil { scheduleClocks() }
    }

    func unwatch(_ id: UInt64) { clocks[id] = nil }

    /// A token of the attempt came.
    func token(_ id: UInt64) { clocks[id]?.token(now: loop.now) }

    /// The attempt's instance says how much work it has done.
    func sign(_ id: UInt64, work: UInt64) { clocks[id]?.sign(work: work, now: loop.now) }

    private func scheduleClocks() {
        clockTimer = loop.schedule(afterMicroseconds: Self.clockMicroseconds) { [weak self] in
            guard let self else { return }
            clockTimer = nil
            let stalled = clocks.filter { $0.value.isStalled(now: self.loop.now) }.keys.sorted()
            for id in stalled { takeAway(id) }
            if !clocks.isEmpty { scheduleClocks() }
        }
    }

    private func takeAway(_ id: UInt64) {
        clocks[id] = nil
        guard case .placed(let placement) = tickets[id] else { return }
        tickets[id] = .waiting
        let seconds = Self.stallMicroseconds / 1_000_000
        let name = members[placement.decode]?.address ?? "an attention instance"
        controller.broke(
            id: id, attempt: placement.attempt, instance: placement.decode,
            because: "\(name) made no headway with the request for \(seconds) s", now: loop.now)
        onRestart[id]?()
        poll()
    }

    /// The attempt has sent its first token.
    func firstToken(_ id: UInt64, _ route: Route) {
        controller.firstToken(id: id, attempt: route.placement.attempt)
        poll()
    }

    /// The attempt's stream failed; the request is placed again or given up, and `next` says which.
    func broke(_ id: UInt64, _ route: Route, _ error: RPCError, _ verdict: FaultTable.Verdict) {
        guard case .placed(let placement) = tickets[id], placement.attempt == route.placement.attempt else { return }
        tickets[id] = .waiting
        let culprit: Int? =
            switch verdict.blame {
            case .nobody: nil
            case .called: placement.decode
            case .prefill: placement.prefill
            }
        if [.experts, .sampler].contains(error.link), error.code == .unavailable,
            let generation = members[placement.decode]?.generation
        {
            // Until it is asked the next time, and says otherwise.
            controller.chain(
                instance: placement.decode, generation: generation, fault: "\(route.name): \(error.message)")
        }
        controller.broke(
            id: id, attempt: route.placement.attempt, instance: culprit,
            avoiding: error.link == .handOff ? placement.prefill : placement.decode, because: error.message,
            now: loop.now)
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
        clocks[id] = nil
        controller.ended(id: id)
        poll()
    }

    func poll() {
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
            let reason = describe(deferral)
            finish(
                id,
                deferral.isShortage
                    ? RPCError(.notAccepted, "no instance had room in time: \(reason)") : RPCError(.unavailable, reason)
            )
        case .failed(let id, let reason): finish(id, RPCError(.unavailable, reason))
        case .overBudget(let id, let reason):
            let seconds = RetryBudget.windowMicroseconds / 1_000_000
            let advice = "so much has failed that it is not tried again: come back in \(seconds) seconds"
            finish(id, RPCError(.retryBudgetSpent, "\(reason); \(advice)"))
        case .retired(let instance): if let member = members[instance] { members.remove(member) }
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
        clockTimer?.cancel()
        away.wake()
        for watch in watches { watch.close() }
        members.close()
    }
}
