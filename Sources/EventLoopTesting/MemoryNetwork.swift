import EventLoop
import Glibc
import RandomNumbers
import Synchronization

/// A network of loops in one process with virtual time: everything that happens on it happens on the thread that calls
/// `run`, in an order that depends on the seed and on nothing else. `digest` tells whether two runs were the same.
///
/// Bytes arrive after a random delay and in pieces of random size; each connection keeps its own order, connections
/// overtake each other.
///
/// The network owns what is to happen on its loops: timers, deliveries, listeners and open connections. Loops and streams
/// know it weakly, so all of that goes with the last reference to the network, or with `close`.
///
/// What comes from any thread waits under a mutex; all else the thread that drives it touches, which every job asserts.
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
    /// Of all that happened so far: which loop ran something when, and which numbers were drawn. The same seed gives the
    /// same digest, in any process; what ran while the digests differ is where two runs parted.
    public private(set) var digest: UInt64 = 0
    /// Set by `close`.
    public private(set) var isClosed = false
    let behaviour: Behaviour
    private let ready = Mutex<[(MemoryLoop, Item)]>([])
    private var events = EventQueue()
    private var generator: SplitMix64
    private var loopCount = 0
    private let driver = Atomic<UInt>(0)
    private var current: MemoryLoop?

    // What `MemoryNetwork+Connections` keeps.
    var listeners: [Int: MemoryListener] = [:]
    /// Open ends by their numbers.
    var streams: [Int: MemoryStream] = [:]
    var streamCount = 0
    var nextPort = 49_152
    var names: [String: [String]?] = [:]
    var assignments: [String: Int] = [:]
    var frozen: Set<Int> = []
    var cuts: [Int: Int] = [:]

    /// A network whose chances are drawn from `seed`.
    public init(seed: UInt64, behaviour: Behaviour = Behaviour()) {
        self.seed = seed
        self.behaviour = behaviour
        generator = SplitMix64(seed: seed)
    }

    deinit {
        // A stream and who reads it know each other until it ends.
        for stream in streams.values { stream.forget() }
    }

    /// A new loop on this network; `name` is what its peers see.
    public func makeLoop(_ name: String = "loop") -> MemoryLoop {
        loopCount += 1
        return MemoryLoop(self, name, number: loopCount)
    }

    /// Open ends of connections; 0 when nothing is left over.
    public var openStreamCount: Int { streams.count }

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
        drive {
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

    /// Rounds of ready jobs that `close` still runs.
    private static let closingRounds = 10_000

    /// Ends the network: every connection breaks, lookups and connections under way fail, what is ready still runs, and
    /// timers are forgotten. From now on nothing is opened and no timer fires, so whoever waits for one waits for ever:
    /// end what lives on the network first.
    public func close() {
        guard !isClosed else { return }
        isClosed = true
        drive {
            listeners.removeAll()
            cut()
            for event in events.removeAll() where !event.isTimer { perform(event.loop, .action(event.action)) }
            for _ in 0..<Self.closingRounds where !runReady({ false }) { break }
            ready.withLock { $0.removeAll() }
        }
    }

    private func drive<Value>(_ body: () -> Value) -> Value {
        let caller = driver.exchange(UInt(pthread_self()), ordering: .acquiringAndReleasing)
        precondition(caller == 0, "a memory network is run by one thread at a time")
        defer { driver.store(0, ordering: .releasing) }
        return body()
    }

    /// Runs the jobs that are ready, in their order; false when there is none.
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
        loop.assertIsolated()
        note(now)
        switch item {
        case .job(let job):
            note(UInt64(2 * loop.number))
            job.runSynchronously(
                isolatedTo: loop.asUnownedSerialExecutor(), taskExecutor: loop.asUnownedTaskExecutor())
        case .action(let action):
            note(UInt64(2 * loop.number + 1))
            action()
        }
    }

    private func note(_ value: UInt64) { digest = SplitMix64.mix(digest ^ value) }

    func isCurrent(_ loop: MemoryLoop) -> Bool {
        driver.load(ordering: .acquiring) == UInt(pthread_self()) && current === loop
    }

    func add(_ loop: MemoryLoop, _ item: Item) { ready.withLock { $0.append((loop, item)) } }

    // MARK: Time and chance

    /// A timer of `loop`; on a closed network one that never fires.
    func schedule(
        _ loop: MemoryLoop, afterMicroseconds: UInt64, _ action: @escaping @Sendable () -> Void
    ) -> MemoryTimer {
        guard !isClosed else { return MemoryTimer(self, 0) }
        let (time, overflow) = now.addingReportingOverflow(afterMicroseconds)
        return MemoryTimer(self, events.push(at: overflow ? .max : time, loop, isTimer: true, action))
    }

    /// Something that the network brings to `loop` at `time`; on a closed network at once, so that it fails.
    func deliver(_ loop: MemoryLoop, at time: UInt64, _ action: @escaping @Sendable () -> Void) {
        guard !isClosed else { return add(loop, .action(action)) }
        _ = events.push(at: time, loop, isTimer: false, action)
    }

    func cancel(_ identifier: UInt64) { events.cancel(identifier) }

    func random(_ range: ClosedRange<Int>) -> Int { noted(Int.random(in: range, using: &generator)) }

    func random(_ range: ClosedRange<UInt64>) -> UInt64 { noted(UInt64.random(in: range, using: &generator)) }

    func randomDelay() -> UInt64 { random(behaviour.delayMicroseconds) }

    private func noted<Value: FixedWidthInteger>(_ value: Value) -> Value {
        note(UInt64(truncatingIfNeeded: value))
        return value
    }
}
