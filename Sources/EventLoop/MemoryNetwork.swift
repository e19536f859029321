import Glibc
import Synchronization

/// A network of loops in one process with virtual time: everything that happens on it happens on the thread that calls
/// `run`, in an order that depends on the seed and on nothing else.
///
/// Bytes arrive after a random delay and in pieces of random size; each connection keeps its own order, connections
/// overtake each other.
public final class MemoryNetwork: @unchecked Sendable {
    /// How the network treats bytes.
    public struct Behaviour: Sendable {
        /// One-way delay of a piece in microseconds.
        public var delayMicroseconds: ClosedRange<UInt64> = 20...200
        /// Bytes of one read.
        public var pieceBytes: ClosedRange<Int> = 1...(64 << 10)
        /// Bytes of one connection that are under way or wait at a receiver that does not read.
        public var windowBytes = 256 << 10

        /// The defaults: 20…200 µs, reads of any size up to 64 KiB, a window of 256 KiB.
        public init() {}
    }

    enum Item {
        case job(UnownedJob)
        case action(@Sendable () -> Void)
    }

    /// Virtual time in microseconds.
    public private(set) var now: UInt64 = 0
    /// The seed, for the message of a failing test.
    public let seed: UInt64
    let behaviour: Behaviour
    private let ready = Mutex<[(MemoryLoop, Item)]>([])
    private var events = EventQueue()
    private var generator: SplitMix64
    private var listeners: [Int: MemoryListener] = [:]
    private var pipes: [ObjectIdentifier: MemoryStream] = [:]
    private var nextPort = 49_152
    private let driver = Atomic<UInt>(0)
    private var current: MemoryLoop?

    /// A network whose chances are drawn from `seed`.
    public init(seed: UInt64, behaviour: Behaviour = Behaviour()) {
        self.seed = seed
        self.behaviour = behaviour
        generator = SplitMix64(state: seed)
    }

    /// A new loop on this network; `name` is what its peers see.
    public func makeLoop(_ name: String = "loop") -> MemoryLoop { MemoryLoop(self, name) }

    /// Open ends of connections; 0 when nothing is left over.
    public var openStreamCount: Int { pipes.count }

    /// Open listeners.
    public var listenerCount: Int { listeners.count }

    /// Timers and deliveries to come; 0 when nothing is left over.
    public var eventCount: Int { events.count }

    // MARK: Running

    /// Runs until nothing is left to do, or until virtual time has advanced by `limitMicroseconds`. True when idle.
    @discardableResult
    public func runUntilIdle(limitMicroseconds: UInt64 = 3_600_000_000) -> Bool {
        run(limitMicroseconds: limitMicroseconds) { false }
        return events.next == nil
    }

    /// Runs for a stretch of virtual time; `now` is that much later afterwards.
    public func run(forMicroseconds microseconds: UInt64) {
        run(limitMicroseconds: microseconds) { false }
    }

    /// Runs until `condition`, which is asked after every job, or until virtual time has advanced by
    /// `limitMicroseconds` or nothing is left to do. Returns the condition.
    @discardableResult
    public func run(limitMicroseconds: UInt64 = 3_600_000_000, until condition: () -> Bool) -> Bool {
        let caller = driver.exchange(UInt(pthread_self()), ordering: .acquiringAndReleasing)
        precondition(caller == 0, "a memory network is run by one thread at a time")
        defer { driver.store(0, ordering: .releasing) }
        let (end, overflow) = now.addingReportingOverflow(limitMicroseconds)
        let limit = overflow ? .max : end
        while !condition() {
            if runReady(condition) { continue }
            guard let next = events.next, next <= limit else {
                if limitMicroseconds < 3_600_000_000 || events.next != nil { now = limit }
                return condition()
            }
            now = max(now, next)
            if let event = events.pop() { perform(event.loop, .action(event.action)) }
        }
        return true
    }

    /// Runs a task on `loop` and drives the network until it is done; throws what it throws. The result is nil when
    /// `limitMicroseconds` pass or everything comes to rest before that.
    public func run<Value: Sendable>(
        on loop: MemoryLoop, limitMicroseconds: UInt64 = 3_600_000_000,
        _ body: @escaping @Sendable () async throws -> Value
    ) throws -> Value? {
        let box = Mutex<Result<Value, any Error>?>(nil)
        let shared = Shared(box)
        loop.execute {
            Task.immediate(executorPreference: loop) {
                do {
                    let value = try await body()
                    shared.box.withLock { $0 = .success(value) }
                } catch {
                    shared.box.withLock { $0 = .failure(error) }
                }
            }
        }
        run(limitMicroseconds: limitMicroseconds) { shared.box.withLock { $0 != nil } }
        return try shared.box.withLock { try $0?.get() }
    }

    private final class Shared<Value: Sendable>: Sendable {
        let box: Mutex<Result<Value, any Error>?>
        init(_ box: consuming Mutex<Result<Value, any Error>?>) { self.box = box }
    }

    /// Runs the job that has been ready longest; false when there is none.
    private func runReady(_ condition: () -> Bool) -> Bool {
        let batch = ready.withLock { ready in
            defer { ready.removeAll(keepingCapacity: true) }
            return ready
        }
        guard !batch.isEmpty else { return false }
        for (index, (loop, item)) in batch.enumerated() {
            perform(loop, item)
            guard condition() else { continue }
            ready.withLock { $0.insert(contentsOf: batch[(index + 1)...], at: 0) }
            return true
        }
        return true
    }

    private func perform(_ loop: MemoryLoop, _ item: Item) {
        current = loop
        defer { current = nil }
        switch item {
        case .job(let job):
            job.runSynchronously(
                isolatedTo: loop.asUnownedSerialExecutor(), taskExecutor: loop.asUnownedTaskExecutor())
        case .action(let action): action()
        }
    }

    func isCurrent(_ loop: MemoryLoop) -> Bool {
        driver.load(ordering: .acquiring) == UInt(pthread_self()) && current === loop
    }

    func add(_ loop: MemoryLoop, _ item: Item) { ready.withLock { $0.append((loop, item)) } }

    // MARK: Time and chance

    func schedule(
        _ loop: MemoryLoop, afterMicroseconds: UInt64, _ action: @escaping @Sendable () -> Void
    ) -> MemoryTimer {
        let (time, overflow) = now.addingReportingOverflow(afterMicroseconds)
        return schedule(loop, at: overflow ? .max : time, action)
    }

    @discardableResult
    func schedule(_ loop: MemoryLoop, at time: UInt64, _ action: @escaping @Sendable () -> Void) -> MemoryTimer {
        MemoryTimer(self, events.push(at: time, loop, action))
    }

    func cancel(_ identifier: UInt64) { events.cancel(identifier) }

    func random(_ range: ClosedRange<Int>) -> Int { Int.random(in: range, using: &generator) }

    func random(_ range: ClosedRange<UInt64>) -> UInt64 { UInt64.random(in: range, using: &generator) }

    func randomDelay() -> UInt64 { UInt64.random(in: behaviour.delayMicroseconds, using: &generator) }

    // MARK: Connections

    func listen(_ listener: MemoryListener, port: Int) throws(LoopError) -> Int {
        guard (0...65535).contains(port) else { throw LoopError("cannot listen on port \(port): not a port") }
        var chosen = port
        while chosen == 0 || (port == 0 && listeners[chosen] != nil) {
            chosen = nextPort
            nextPort = nextPort == 65535 ? 49_152 : nextPort + 1
        }
        guard listeners[chosen] == nil else { throw LoopError("cannot listen on port \(chosen): address in use") }
        listeners[chosen] = listener
        return chosen
    }

    func stopListening(_ listener: MemoryListener) {
        if listeners[listener.port] === listener { listeners[listener.port] = nil }
    }

    func listener(port: Int) -> MemoryListener? { listeners[port] }

    func opened(_ stream: MemoryStream) { pipes[ObjectIdentifier(stream)] = stream }

    func closed(_ stream: MemoryStream) { pipes[ObjectIdentifier(stream)] = nil }

    /// Breaks every connection to `port` (all connections without one) as a pulled cable would, noticed at once:
    /// bytes under way are lost and both ends close with an error. Returns how many ends it broke.
    @discardableResult
    public func cut(port: Int? = nil) -> Int {
        let broken = pipes.values.filter { port == nil || $0.port == port }.sorted { $0.number < $1.number }
        for stream in broken { stream.fail(LoopError("\(stream.peer): connection reset by peer")) }
        return broken.count
    }

    /// Breaks the next connection to `port` once the client has been sent, or has sent, `bytes` bytes in all.
    public func cutNextConnection(port: Int, afterBytes bytes: Int) { cuts[port] = bytes }

    /// From now on what connected to `port` takes no bytes, as a process that was stopped would not, until `thaw`.
    public func freezeClients(of port: Int) { frozen.insert(port) }

    /// Ends `freezeClients`.
    public func thaw() {
        frozen.removeAll()
        for stream in pipes.values.sorted(by: { $0.number < $1.number }) {
            stream.loop.execute { stream.thaw() }
        }
    }

    // MARK: Names

    private var names: [String: [String]?] = [:]
    private var assignments: [String: Int] = [:]

    /// What lookups of `name` find from now on: addresses, none at all, or, with nil, that there is no such name. A name
    /// that nothing was said about stands for itself.
    public func setAddresses(of name: String, _ addresses: [String]?) {
        names.updateValue(addresses, forKey: name)
    }

    /// Connections to `address` go to the listener on `port` of the network.
    public func assign(_ address: String, port: Int) { assignments[address] = port }

    func assigned(_ address: String) -> Int? { assignments[address] }

    func lookUp(_ name: String) -> Result<[String], LoopError> {
        guard let answer = names[name] else { return .success([name]) }
        guard let answer else { return .failure(LoopError("\(name) cannot be resolved: unknown node or service")) }
        return .success(answer)
    }

    // MARK: Frozen peers

    private var frozen: Set<Int> = []

    func isFrozen(_ stream: MemoryStream) -> Bool { stream.isClient && frozen.contains(stream.port) }

    private var cuts: [Int: Int] = [:]

    func takeCut(port: Int) -> Int? { cuts.removeValue(forKey: port) }

    private var streamCount = 0

    func nextStreamNumber() -> Int {
        streamCount += 1
        return streamCount
    }
}

/// The generator of Steele, Lea and Flood (2014): small, seedable, the same everywhere.
struct SplitMix64: RandomNumberGenerator {
    var state: UInt64

    mutating func next() -> UInt64 {
        state &+= 0x9E37_79B9_7F4A_7C15
        var mixed = state
        mixed = (mixed ^ (mixed >> 30)) &* 0xBF58_476D_1CE4_E5B9
        mixed = (mixed ^ (mixed >> 27)) &* 0x94D0_49BB_1331_11EB
        return mixed ^ (mixed >> 31)
    }
}
