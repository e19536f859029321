import EventLoop

/// A loop on a `MemoryNetwork`: no threads, no sockets, virtual time. Nothing happens on it any more once the network is
/// gone.
public final class MemoryLoop: Loop {
    /// The network that drives it. That one owns what is to happen here, so the loop must not own it in turn.
    weak let network: MemoryNetwork?
    /// What its peers see.
    public let name: String
    /// From 1, in the order in which the network's loops were made.
    let number: Int

    init(_ network: MemoryNetwork, _ name: String, number: Int) {
        self.network = network
        self.name = name
        self.number = number
    }

    /// Virtual time in microseconds.
    public var now: UInt64 { network?.now ?? 0 }

    /// The next number of the network's seeded generator.
    public func random(in range: ClosedRange<UInt64>) -> UInt64 { network?.random(range) ?? range.lowerBound }

    /// Makes a job ready; it runs when the network does. From any thread.
    public func enqueue(_ job: consuming ExecutorJob) {
        let job = UnownedJob(job)
        network?.add(self, .job(job))
    }

    /// Makes an action ready; it runs when the network does. From any thread.
    public func execute(_ action: @escaping @Sendable () -> Void) { network?.add(self, .action(action)) }

    /// This loop as a serial executor.
    public func asUnownedSerialExecutor() -> UnownedSerialExecutor { UnownedSerialExecutor(ordinary: self) }

    /// Traps unless called from one of this loop's jobs.
    public func checkIsolated() { precondition(isCurrent, "called off its event loop") }

    /// True in this loop's jobs.
    public func isIsolatingCurrentContext() -> Bool? { isCurrent }

    private var isCurrent: Bool { network?.isCurrent(self) == true }

    /// Calls `action` once, when virtual time has advanced by `microseconds`.
    @discardableResult
    public func schedule(
        afterMicroseconds microseconds: UInt64, _ action: @escaping @Sendable () -> Void
    ) -> any LoopTimer {
        network?.schedule(self, afterMicroseconds: microseconds, action) ?? MemoryTimer(nil, 0)
    }

    private static let gone = LoopError("the network is gone")

    /// What the network says that `host` stands for, after a random delay.
    ///
    /// - Throws: `LoopError` when the network knows no such host.
    public func addresses(of host: String) async throws(LoopError) -> [String] {
        let result: Result<[String], LoopError> = await withCheckedContinuation { continuation in
            execute { [self] in
                guard let network else { return continuation.resume(returning: .failure(Self.gone)) }
                network.deliver(self, at: network.now + network.randomDelay()) { [self] in
                    continuation.resume(returning: self.network?.lookUp(host) ?? .failure(Self.gone))
                }
            }
        }
        return try result.get()
    }

    /// Accepts connections to `port` from any loop of the network; the host is not looked at.
    ///
    /// - Throws: `LoopError` when the port is taken.
    public func listen(
        host: String, port: Int, onAccept: @escaping @Sendable (any ByteStream) -> Void
    ) throws(LoopError) -> any Listener {
        guard let network else { throw Self.gone }
        let listener = MemoryListener(self, port: try network.freePort(port), onAccept)
        network.listen(listener)
        return listener
    }

    /// Connects to `port` on the network, or to where `assign` put that host's, after one round trip.
    ///
    /// - Throws: `LoopError` when nobody listens there, or nothing comes in time.
    public func connect(
        host: String, port: Int, timeoutMicroseconds: UInt64
    ) async throws(LoopError) -> any ByteStream {
        let result: Result<MemoryStream, LoopError> = await withCheckedContinuation { continuation in
            execute { [self] in
                guard let network else { return continuation.resume(returning: .failure(Self.gone)) }
                let roundTrip = network.randomDelay() + network.randomDelay()
                network.deliver(self, at: network.now + min(roundTrip, timeoutMicroseconds)) { [self] in
                    guard roundTrip <= timeoutMicroseconds else {
                        let limit = timeoutMicroseconds / 1000
                        let error = LoopError("\(host):\(port): no connection within \(limit) ms")
                        return continuation.resume(returning: .failure(error))
                    }
                    continuation.resume(returning: meet("\(host):\(port)", port))
                }
            }
        }
        return try result.get()
    }

    private func meet(_ address: String, _ port: Int) -> Result<MemoryStream, LoopError> {
        guard let network else { return .failure(Self.gone) }
        let port = network.assigned(address) ?? port
        guard let listener = network.listener(port: port) else {
            return .failure(LoopError("\(address): connection refused"))
        }
        let ours = MemoryStream(network, self, peer: address, port: port, isClient: true)
        let theirs = MemoryStream(network, listener.loop, peer: "\(name):\(ours.number)", port: port, isClient: false)
        ours.join(theirs, network, cutAfterBytes: network.takeCut(port: port))
        listener.loop.execute { listener.accept(theirs) }
        return .success(ours)
    }
}

/// A listener on a `MemoryNetwork`.
final class MemoryListener: Listener {
    let loop: MemoryLoop
    private let onAccept: @Sendable (any ByteStream) -> Void
    private let isOpen: LoopBound<Bool>
    let port: Int

    init(_ loop: MemoryLoop, port: Int, _ onAccept: @escaping @Sendable (any ByteStream) -> Void) {
        isOpen = LoopBound(true, on: loop)
        self.port = port
        self.loop = loop
        self.onAccept = onAccept
    }

    func accept(_ stream: MemoryStream) {
        guard isOpen.value else { return stream.abort() }
        onAccept(stream)
    }

    func close() {
        isOpen.value = false
        loop.network?.stopListening(self)
    }
}

/// A timer in virtual time.
final class MemoryTimer: LoopTimer {
    private weak let network: MemoryNetwork?
    private let identifier: UInt64

    init(_ network: MemoryNetwork?, _ identifier: UInt64) {
        self.network = network
        self.identifier = identifier
    }

    func cancel() { network?.cancel(identifier) }
}
