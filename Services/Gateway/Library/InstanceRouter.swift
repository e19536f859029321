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
/// `Completion`'s; this tells them what happens and does what they say. Confined to its loop, which it asserts.
final class InstanceRouter: @unchecked Sendable {
    /// Tokens a request is expected to generate, at most; attention instances expect the same.
    static let expectedTokens = 4096
    /// Clocks of completions are looked at this often.
    private static let clockMicroseconds: UInt64 = 1_000_000

    let loop: any Loop
    private(set) var fleet: Fleet
    private(set) var watches: [AddressWatch] = []
    var clients: [Int: RPCClient] = [:]
    private var completions: [UInt64: Completion] = [:]
    private var streams: [UInt64: RPCStream] = [:]
    private let makeClient: (String, Int) -> RPCClient
    /// Those who wait for what may become of the fleet.
    let waiters = Waiters()
    /// Those who ask an instance wait here for the next time.
    let away = Waiters()
    private var lastID: UInt64 = 0
    private var clockTimer: (any LoopTimer)?
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
        fleet = Fleet(limits: limits, policy: policy)
        makeClient = { host, port in
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

    /// Microseconds from now until `time`; 0 when that is over.
    func left(until time: UInt64) -> UInt64 {
        // The clock goes on between two looks at it.
        let now = loop.now
        return time > now ? time - now : 0
    }

    // MARK: Completions

    /// How many are not over.
    var completionCount: Int { completions.count }

    /// A completion that is not over.
    func completion(_ id: UInt64) -> Completion {
        guard let completion = completions[id] else { preconditionFailure("completion \(id) is over") }
        return completion
    }

    /// Takes a completion in; `end` must follow.
    func begin(_ completion: Completion, decoder: (any TextDecoder)?, timeoutMicroseconds: UInt64) -> UInt64 {
        loop.preconditionIsolated()
        lastID += 1
        var completion = completion
        let (deadline, overflow) = loop.now.addingReportingOverflow(timeoutMicroseconds)
        completion.begin(lastID, decoder: decoder, deadline: overflow ? .max : deadline)
        completions[lastID] = completion
        let request = completion.request
        report(.submit(request.lengths, prefix: PrefixHash.blocks(of: request.tokens)))
        if clockTimer == nil { scheduleClocks() }
        return lastID
    }

    /// Tells a completion what happened, and returns what it wants done.
    func tell(_ id: UInt64, _ event: Completion.Event) -> Completion.Action {
        loop.preconditionIsolated()
        guard let action = completions[id]?.handle(event, now: loop.now) else {
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
                    completions[id]?.isWaiting == true && !Task.isCancelled
                }
            } onCancel: {
                loop.execute { [waiters] in waiters.wake() }
            }
        }
    }

    /// The attempt's stream is open; `close` must follow.
    func opened(_ id: UInt64, _ stream: RPCStream) {
        streams[id] = stream
        if case .cancel = tell(id, .opened) { stream.cancel() }
    }

    /// The attempt is over.
    func close(_ id: UInt64) { streams.removeValue(forKey: id)?.cancel() }

    /// The completion is over, whatever way; nil when that was said before.
    @discardableResult
    func end(_ id: UInt64) -> Completion? {
        guard let completion = completions.removeValue(forKey: id) else { return nil }
        report(.ended(id))
        return completion
    }

    private func scheduleClocks() {
        clockTimer = loop.schedule(afterMicroseconds: Self.clockMicroseconds) { [weak self] in
            guard let self else { return }
            clockTimer = nil
            for id in completions.keys.sorted() {
                guard case .placeAgain(let loss) = tell(id, .clock) else { continue }
                streams[id]?.cancel()
                report(.broke(id, loss))
            }
            if !completions.isEmpty { scheduleClocks() }
        }
    }

    // MARK: The fleet

    /// Tells the fleet what happened, and does what it says.
    func report(_ event: Fleet.Event) {
        loop.preconditionIsolated()
        for action in fleet.handle(event, now: loop.now) { perform(action) }
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
        case .disconnect(let instance): clients.removeValue(forKey: instance)?.close()
        case .wake(let time):
            wakeTimer?.cancel()
            guard let time else { return }
            wakeTimer = loop.schedule(afterMicroseconds: max(1, left(until: time))) { [weak self] in
                self?.report(.due)
            }
        }
    }

    private func pass(_ event: Completion.Event, to id: UInt64) {
        if case .cancel = tell(id, event) { streams[id]?.cancel() }
    }

    /// The connection to an instance that is there.
    func client(_ instance: Int) -> RPCClient {
        guard let client = clients[instance] else { preconditionFailure("instance \(instance) is not there") }
        return client
    }

    /// `host:port` of an instance that is there.
    func name(of instance: Int) -> String { fleet[instance]?.address ?? "an attention instance" }

    /// Ends all connections.
    func close() {
        loop.preconditionIsolated()
        isClosed = true
        wakeTimer?.cancel()
        clockTimer?.cancel()
        away.wake()
        for watch in watches { watch.close() }
        for (_, client) in clients.sorted(by: { $0.key < $1.key }) { client.close() }
    }
}
