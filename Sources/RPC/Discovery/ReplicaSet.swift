import EventLoop
import Observability
import WireProtocol

/// All replicas behind one `host:port`. Each can answer any call and all answer alike, so a call goes to one that is
/// there, and again to another when it is lost on the way. A name is looked up again and again: replicas join and leave
/// while calls run. Confined to its loop, which calls, waits and changes of who is there assert.
public final class ReplicaSet: @unchecked Sendable {
    private final class Replica: Sendable {
        let id: Int
        let address: String
        let client: RPCClient
        private let admission: LoopBound<Bool>

        var isAdmitted: Bool {
            get { admission.value }
            set { admission.value = newValue }
        }

        var canBeCalled: Bool { isAdmitted && client.isReady }

        init(id: Int, address: String, client: RPCClient) {
            self.id = id
            self.address = address
            self.client = client
            admission = LoopBound(false, on: client.loop)
        }
    }

    /// A replica that left keeps its connection for so long while calls are in flight.
    static let leaveMicroseconds: UInt64 = 5_000_000
    /// Pause before a replica that was not admitted is looked at again.
    static let admissionPauseMicroseconds: UInt64 = 2_000_000

    /// Name for messages, such as "experts process 0".
    public let name: String
    private let loop: any Loop
    private let makeClient: (String) -> RPCClient
    private let admit: (RPCClient) async throws(RPCError) -> Void
    private let waiters = Waiters()
    private var watch: AddressWatch?
    private var replicas: [Replica] = []
    private var leaving: [Replica] = []
    private var choice = ReplicaChoice()
    private var nextID = 0
    private var isClosed = false
    private var refusal: RPCError?
    private var retries: Int64 = 0
    private var absentSince: UInt64?

    /// Replicas behind `host`.
    ///
    /// - makeClient: makes a client for an address; on the same loop.
    /// - admit: asks a replica that is connected whether it fits; one that does not gets no calls.
    /// - onChange: called with each change of who is there, for logs.
    public init(
        name: String, host: String, loop: any Loop, limits: Discovery.Limits = Discovery.Limits(),
        makeClient: @escaping (String) -> RPCClient,
        admit: @escaping (RPCClient) async throws(RPCError) -> Void,
        onChange: @escaping @Sendable (Discovery.Change) -> Void = { _ in }
    ) {
        self.name = name
        self.loop = loop
        self.makeClient = makeClient
        self.admit = admit
        watch = AddressWatch(host: host, loop: loop, limits: limits) { [weak self] change in
            onChange(change)
            self?.take(change)
        }
    }

    /// Begins to look for replicas and to connect to them, and keeps at it until `close`.
    public func start() { watch?.start() }

    /// Waits until one replica can be called; throws the last reason when none can in time, or when all that are there
    /// do not fit.
    public func waitReady(timeoutMicroseconds: UInt64) async throws(RPCError) {
        let (sum, overflow) = loop.now.addingReportingOverflow(timeoutMicroseconds)
        let end = overflow ? .max : sum
        while !isClosed, refusal == nil, !canBeCalled, loop.now < end {
            // A connection that is made again tells nobody.
            await waiters.wait(loop, atMostMicroseconds: min(Self.lookMicroseconds, end - loop.now)) {
                !isClosed && refusal == nil && !canBeCalled
            }
        }
        guard !canBeCalled else { return }
        if isClosed { throw RPCError(.cancelled, "the connections to \(name) were closed on this side") }
        throw refusal ?? RPCError(.unavailable, "\(name): \(reason)")
    }

    /// Why none can be called: what is known of the first.
    public var reason: String {
        guard let replica = replicas.first else {
            return watch?.lastError?.description ?? "no address is known yet"
        }
        let client = replica.client
        let place = SocketAddress.text(replica.address, client.port)
        guard !client.isReady || replica.isAdmitted else { return "\(place) has not said yet what it takes" }
        let cause = client.lastError?.message ?? "still connecting"
        return cause.hasPrefix(place) ? cause : "\(place) is not ready: \(cause)"
    }

    /// True when a call would be sent to a replica at once.
    public var canBeCalled: Bool {
        loop.assertIsolated()
        return replicas.contains(where: \.canBeCalled)
    }

    /// Whoever waits for a replica looks so often.
    private static let lookMicroseconds: UInt64 = 20_000
    /// How long none may be callable before that counts: a connection that was lost is made again sooner.
    static let outageMicroseconds: UInt64 = 400_000

    /// Why no replica can be called, when none could the last time this was asked either, a moment ago; nil otherwise.
    public var outage: String? {
        guard !canBeCalled else {
            absentSince = nil
            return nil
        }
        let since = absentSince ?? loop.now
        absentSince = since
        return loop.now - since >= Self.outageMicroseconds ? reason : nil
    }

    /// Those that cannot be called, with the reason, which is nil while a first attempt runs.
    public var absences: [(name: String, reason: RPCError?)] {
        guard !replicas.isEmpty else {
            return [(name, RPCError(.unavailable, watch?.lastError?.description ?? "no address is known yet"))]
        }
        return replicas.filter { !$0.canBeCalled }.map { replica in
            let place = SocketAddress.text(replica.address, replica.client.port)
            return ("\(name) at \(place)", replica.client.isReady ? refusal : replica.client.lastError)
        }
    }

    /// Sends a call that does no harm when it is carried out twice, to another replica or again after growing pauses
    /// while none is there or takes it, until the time is up. One that another could take the place of has half of it. What
    /// a replica refuses is asked of another one once, if there is one: they should agree.
    ///
    /// - Throws: `RPCError` that repeating does not mend, or the last one when the time is over.
    public func call(
        _ method: Method, _ payload: RPCPayload, timeoutMicroseconds: UInt64, trace: TraceContext = .none
    ) async throws(RPCError) -> RPCPayload {
        let (sum, overflow) = loop.now.addingReportingOverflow(timeoutMicroseconds)
        let end = overflow ? .max : sum
        var pause: UInt64 = 1000
        var (failed, tried): (Int?, Int) = (nil, 0)
        var refusals = 0
        while true {
            let (replica, count) = choose(avoiding: failed)
            var failure: RPCError?
            if let replica {
                let sent = loop.now
                do throws(RPCError) {
                    let rest = loop.now < end ? end - loop.now : 1
                    return try await replica.client.call(
                        method, payload, timeoutMicroseconds: count > 1 ? min(rest, timeoutMicroseconds / 2) : rest,
                        trace: trace)
                } catch {
                    (failure, failed, tried) = (error, replica.id, tried + 1)
                    retries += 1
                    if error.code == .deadlineExceeded { replica.client.reconnect(ifSilentSince: sent) }
                }
            }
            let error = failure ?? RPCError(.unavailable, "\(name): \(reason)")
            guard !isClosed, !Task.isCancelled, loop.now + pause < end else { throw error }
            if !Self.isWorthAnother(error) {
                refusals += 1
                guard refusals == 1, count > 1 else { throw error }
            }
            // Each that is there is tried once before the pause.
            guard tried >= count else { continue }
            tried = 0
            await Waiters().wait(loop, atMostMicroseconds: pause) { true }
            pause = min(2 * pause, 100_000)
        }
    }

    /// The replica for the next call, and how many could take it.
    private func choose(avoiding failed: Int?) -> (Replica?, Int) {
        loop.assertIsolated()
        // Most have one, and no list is made for them.
        if replicas.count == 1, let only = replicas.first { return only.canBeCalled ? (only, 1) : (nil, 0) }
        let ready = candidates
        let id = choice.next(ready, avoiding: failed)
        return (replicas.first { $0.id == id }, ready.count)
    }

    /// A replica that did not answer in time may be stuck or gone; another one may not be.
    private static func isWorthAnother(_ error: RPCError) -> Bool {
        error.isRetryable || error.code == .deadlineExceeded
    }

    private var candidates: [ReplicaChoice.Candidate] {
        replicas.filter(\.canBeCalled).map { ReplicaChoice.Candidate(id: $0.id, pending: $0.client.pendingCount) }
    }

    /// How many replicas are known, how many of them can be called, and how often a call was sent again.
    public var counters: [String: Int64] {
        ["replicas": Int64(replicas.count), "replicas_ready": Int64(candidates.count), "retries": retries]
    }

    /// Ends all connections and every call.
    public func close() {
        loop.assertIsolated()
        isClosed = true
        watch?.close()
        for replica in replicas + leaving { replica.client.close() }
        (replicas, leaving) = ([], [])
        waiters.wake()
    }

    // MARK: Who is there

    private func take(_ change: Discovery.Change) {
        loop.assertIsolated()
        switch change {
        case .joined(let address): join(address)
        case .left(let address): leave(address)
        }
    }

    private func join(_ address: String) {
        let replica = Replica(id: nextID, address: address, client: makeClient(address))
        nextID += 1
        replicas.append(replica)
        replica.client.start()
        Task.immediate(executorPreference: loop) { [weak self] in
            while let self, !replica.isAdmitted, replicas.contains(where: { $0 === replica }) {
                await tryToAdmit(replica)
            }
        }
    }

    private func tryToAdmit(_ replica: Replica) async {
        do throws(RPCError) {
            try await replica.client.waitReady(timeoutMicroseconds: 10_000_000)
            try await admit(replica.client)
            replica.isAdmitted = true
            refusal = nil
        } catch {
            if error.code == .mismatch, candidates.isEmpty { refusal = error }
            waiters.wake()
            // While it is away, its own pauses between connections are enough.
            guard !isClosed, error.code != .unavailable else { return }
            await waiters.wait(loop, atMostMicroseconds: Self.admissionPauseMicroseconds) {
                replicas.contains { $0 === replica }
            }
        }
        waiters.wake()
    }

    private func leave(_ address: String) {
        guard let index = replicas.firstIndex(where: { $0.address == address }) else { return }
        let replica = replicas.remove(at: index)
        choice.forget(replica.id)
        leaving.append(replica)
        waiters.wake()
        let end = loop.now + Self.leaveMicroseconds
        Task.immediate(executorPreference: loop) { [self] in
            while !isClosed, replica.client.pendingCount > 0, loop.now < end {
                await waiters.wait(loop, atMostMicroseconds: 50_000) { !isClosed }
            }
            replica.client.close()
            leaving.removeAll { $0 === replica }
        }
    }
}
