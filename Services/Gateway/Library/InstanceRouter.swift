import EventLoop
import GatewayCore
import RPC
import Scheduling
import ServiceSupport
import Serving
import WireProtocol

/// Attention instances as the gateway is told of them: one by its address, or all that a name stands for.
public struct InstanceAddress: Sendable, Equatable {
    /// Which part of a request they take.
    public let role: Part
    /// Where they listen.
    public let address: HostPort

    /// Instances.
    public init(role: Part, address: HostPort) {
        self.role = role
        self.address = address
    }
}

/// The connections to all attention instances, and the completions that run on them. What is decided is `Fleet`'s and
/// `Completion`'s; this tells them what happens and does what they say. Confined to its loop.
final class InstanceRouter: Sendable {
    /// Tokens a request is expected to generate, at most; attention instances expect the same.
    static let expectedTokens = 4096
    /// Clocks of completions are looked at this often.
    private static let clockMicroseconds: UInt64 = 1_000_000

    struct State {
        fileprivate(set) var fleet: Fleet
        var watches: [AddressWatch] = []
        var clients: [Int: RPCClient] = [:]
        fileprivate var completions: [UInt64: Completion] = [:]
        fileprivate var streams: [UInt64: RPCStream] = [:]
        fileprivate var lastID: UInt64 = 0
        fileprivate var clockTimer: (any LoopTimer)?
        fileprivate var wakeTimer: (any LoopTimer)?
        fileprivate(set) var isClosed = false
    }

    let loop: any Loop
    let state: LoopBound<State>
    let instances: [InstanceAddress]
    /// Hears who joins and who leaves a name.
    let onChange: @Sendable (InstanceAddress, Discovery.Change) -> Void
    private let makeClient: @Sendable (String, Int) -> RPCClient
    /// Those who wait for what may become of the fleet.
    let waiters = Waiters()
    /// Those who ask an instance wait here for the next time.
    let away = Waiters()

    /// A router over `instances`; `onChange` hears who joins and who leaves a name, for logs.
    init(
        instances: [InstanceAddress], identity: PeerIdentity, secret: [UInt8], policy: PlacementPolicy,
        retries: RetryBudget.Limits, loop: any Loop,
        onChange: @escaping @Sendable (InstanceAddress, Discovery.Change) -> Void = { _, _ in }
    ) {
        self.loop = loop
        self.instances = instances
        self.onChange = onChange
        var limits = PlacementLimits()
        limits.retries = retries
        limits.expectedTokens = Self.expectedTokens
        state = LoopBound(State(fleet: Fleet(limits: limits, policy: policy)), on: loop)
        makeClient = { host, port in
            RPCClient(
                loop: loop, host: host, port: port, identity: identity, role: "attention",
                fingerprint: identity.fingerprint, secret: secret)
        }
    }

    /// Microseconds from now until `time`; 0 when that is over.
    func left(until time: UInt64) -> UInt64 {
        // The clock goes on between two looks at it.
        let now = loop.now
        return time > now ? time - now : 0
    }

    // MARK: Completions

    /// How many are not over.
    var completionCount: Int { state.completions.count }

    /// A completion that is not over.
    func completion(_ id: UInt64) -> Completion {
        guard let completion = state.completions[id] else { preconditionFailure("completion \(id) is over") }
        return completion
    }

    /// Takes a completion in; `end` must follow.
    func begin(_ completion: Completion, decoder: (any TextDecoder)?, timeoutMicroseconds: UInt64) -> UInt64 {
        state.lastID += 1
        let id = state.lastID
        var completion = completion
        let (deadline, overflow) = loop.now.addingReportingOverflow(timeoutMicroseconds)
        completion.begin(id, decoder: decoder, deadline: overflow ? .max : deadline)
        state.completions[id] = completion
        let request = completion.request
        report(.submit(request.lengths, prefix: PrefixHash.blocks(of: request.tokens)))
        if state.clockTimer == nil { scheduleClocks() }
        return id
    }

    /// Tells a completion what happened, and returns what it wants done.
    func tell(_ id: UInt64, _ event: Completion.Event) -> Completion.Action {
        guard let action = state.completions[id]?.handle(event, now: loop.now) else {
            preconditionFailure("completion \(id) is over and is told \(event)")
        }
        return action
    }

    /// What a completion without a stream wants done, when it wants something.
    func next(_ id: UInt64) async -> Completion.Action {
        while true {
            let action = Task.isCancelled ? tell(id, .gone) : tell(id, .free)
            guard case .wait = action else { return action }
            let limit = left(until: completion(id).deadline)
            await withTaskCancellationHandler {
                await waiters.wait(loop, atMostMicroseconds: limit) {
                    state.completions[id]?.isWaiting == true && !Task.isCancelled
                }
            } onCancel: {
                loop.execute { [waiters] in waiters.wake() }
            }
        }
    }

    /// The attempt's stream is open; `close` must follow.
    func opened(_ id: UInt64, _ stream: RPCStream) {
        state.streams[id] = stream
        if case .cancel = tell(id, .opened) { stream.cancel() }
    }

    /// The attempt is over.
    func close(_ id: UInt64) { state.streams.removeValue(forKey: id)?.cancel() }

    /// The completion is over, whatever way; nil when that was said before.
    @discardableResult
    func end(_ id: UInt64) -> Completion? {
        guard let completion = state.completions.removeValue(forKey: id) else { return nil }
        report(.ended(id))
        return completion
    }

    private func scheduleClocks() {
        state.clockTimer = loop.schedule(afterMicroseconds: Self.clockMicroseconds) { [weak self] in
            guard let self else { return }
            state.clockTimer = nil
            for id in state.completions.keys.sorted() {
                guard case .placeAgain(let loss) = tell(id, .clock) else { continue }
                state.streams[id]?.cancel()
                report(.broke(id, loss))
            }
            if !state.completions.isEmpty { scheduleClocks() }
        }
    }

    // MARK: The fleet

    /// Tells the fleet what happened, and does what it says.
    func report(_ event: Fleet.Event) {
        for action in state.fleet.handle(event, now: loop.now) { perform(action) }
        waiters.wake()
    }

    private func perform(_ action: Fleet.Action) {
        switch action {
        case .tell(let id, let event): pass(event, to: id)
        case .expired(let id, let deferral):
            let reason = describe(deferral)
            let failure =
                deferral.isShortage
                ? Failure(code: .notAccepted, message: "no instance had room in time: \(reason)")
                : Failure(code: .unavailable, message: reason)
            pass(.refused(failure), to: id)
        case .connect(let instance, let address):
            guard let place = HostPort(address) else { preconditionFailure("\(address) is no address") }
            connect(instance, makeClient(place.host, place.port))
        case .disconnect(let instance): state.clients.removeValue(forKey: instance)?.close()
        case .wake(let time):
            state.wakeTimer?.cancel()
            guard let time else { return }
            state.wakeTimer = loop.schedule(afterMicroseconds: max(1, left(until: time))) { [weak self] in
                self?.report(.due)
            }
        }
    }

    private func pass(_ event: Completion.Event, to id: UInt64) {
        if case .cancel = tell(id, event) { state.streams[id]?.cancel() }
    }

    /// The connection to an instance that is there.
    func client(_ instance: Int) -> RPCClient {
        guard let client = state.clients[instance] else { preconditionFailure("instance \(instance) is not there") }
        return client
    }

    /// `host:port` of an instance that is there.
    func name(of instance: Int) -> String { state.fleet[instance]?.address ?? "an attention instance" }

    /// Ends all connections.
    func close() {
        state.isClosed = true
        state.wakeTimer?.cancel()
        state.clockTimer?.cancel()
        away.wake()
        for watch in state.watches { watch.close() }
        for (_, client) in state.clients.sorted(by: { $0.key < $1.key }) { client.close() }
    }
}
