/// The one sequential core of a device, as a kernel sees it: it issues copies, waits, and computes.
///
/// A kernel is an `async` function of its core. Issuing costs core time and returns at once; `wait` and `barrier`
/// suspend the program until the device's clock has caught up. Buffers and semaphores are those of the `Slice`.
///
/// Not to be shared: the programs of all devices run on the simulating thread alone.
public final class Core {
    /// This device.
    public let device: Int
    /// Devices that run the program.
    public let deviceCount: Int
    /// The core's clock.
    public private(set) var now: Picoseconds = 0

    let engine: SimulationEngine
    private let phaseNames: [String]
    private var phase = 0
    private var phaseStart: Picoseconds = 0
    private(set) var phaseTimes: [Picoseconds]
    private(set) var stalls: [Picoseconds]
    private(set) var busy = EngineBusy()
    private var continuation: UnsafeContinuation<Void, Never>?
    private(set) var waitsFor: Int?
    private(set) var waitedBytes: Int64 = 0
    private(set) var isFinished = false

    init(device: Int, engine: SimulationEngine, phaseNames: [String]) {
        self.device = device
        self.engine = engine
        self.phaseNames = phaseNames
        deviceCount = engine.deviceCount
        phaseTimes = Array(repeating: 0, count: phaseNames.count)
        stalls = Array(repeating: 0, count: phaseNames.count)
        now = engine.costs.launch / 2
    }

    var phaseName: String { phaseNames[phase] }

    /// From now on time belongs to this part of the program.
    public func enter(_ next: Phase) {
        guard next.index != phase else { return }
        closePhase()
        phase = next.index
    }

    private func closePhase() {
        phaseTimes[phase] += now - phaseStart
        if now > phaseStart { engine.timeline?.add(.phase(device, phase), from: phaseStart, to: now) }
        phaseStart = now
    }

    func finish() {
        now += engine.costs.launch / 2
        closePhase()
        isFinished = true
    }

    // MARK: Waiting

    /// Suspends the program until the semaphore has these bytes, and takes them off it.
    ///
    /// - Throws: `DeviceError` when the program breaks a rule of the device, here or elsewhere, or all wait for each
    ///   other.
    public func wait(_ semaphore: Semaphore, bytes: Int) async throws(DeviceError) {
        guard bytes > 0 else { return }
        if engine.semaphores.state(semaphore.index, device: device).pointee.value >= Int64(bytes) {
            return engine.take(self, semaphore.index, Int64(bytes))
        }
        waitsFor = semaphore.index
        waitedBytes = Int64(bytes)
        let start = now
        await suspend()
        if let failure = engine.failure { throw failure }
        stalls[phase] += now - start
        engine.timeline?.add(.stall(device, semaphore.index), from: start, to: now)
    }

    /// Suspends the program until all devices are here.
    ///
    /// - Throws: `DeviceError` when the program breaks a rule of the device, here or elsewhere, or all wait for each
    ///   other.
    public func barrier() async throws(DeviceError) {
        guard deviceCount > 1 else { return }
        let start = now
        await withUnsafeContinuation { waiting in
            continuation = waiting
            engine.arriveAtBarrier(self)
        }
        if let failure = engine.failure { throw failure }
        stalls[phase] += now - start
        engine.timeline?.add(.stall(device, -1), from: start, to: now)
    }

    private func suspend() async {
        await withUnsafeContinuation { continuation = $0 }
    }

    func resume(at time: Picoseconds? = nil) {
        guard let waiting = continuation else { return }
        continuation = nil
        waitsFor = nil
        if let time { now = max(now, time) }
        waiting.resume()
    }

    // MARK: Copies

    /// Starts a copy on this device; `semaphore` gets its bytes when it is done.
    ///
    /// - Parameters:
    ///   - pieces: copies the hardware needs for it; each costs issue time.
    ///   - hasPriority: goes before long copies at HBM.
    /// - Throws: `DeviceError` for places outside of a buffer, sizes that differ, or a race.
    public func copy(
        _ source: Region, to target: Region, signalling semaphore: Semaphore, pieces: Int = 1,
        hasPriority: Bool = false
    ) throws(DeviceError) {
        try start(source, target, device, sent: semaphore.index, received: -1, pieces, hasPriority)
    }

    /// Starts a copy into the same buffers of another device. `sent` gets its bytes here when the source may be
    /// changed, `received` over there when they have arrived.
    ///
    /// - Throws: `DeviceError` for places outside of a buffer, a peer that is not there, or a race.
    public func send(
        _ source: Region, to target: Region, on peer: Int, sent: Semaphore, received: Semaphore
    ) throws(DeviceError) {
        guard peer >= 0, peer < deviceCount else {
            throw DeviceError(.bounds, "device \(device) sends to device \(peer); there are \(deviceCount)")
        }
        guard peer != device else { throw DeviceError(.bounds, "device \(device) sends to itself") }
        try start(source, target, peer, sent: sent.index, received: received.index, 1, false)
        engine.steps[device] += 1
    }

    private func start(
        _ source: Region, _ target: Region, _ peer: Int, sent: Int, received: Int, _ pieces: Int, _ hasPriority: Bool
    ) throws(DeviceError) {
        guard source.rowCount == target.rowCount, source.byteCount == target.byteCount, source.bytes > 0 else {
            throw DeviceError(
                .bounds,
                "device \(device) copies \(source.rowCount) rows of \(source.byteCount) bytes to \(target.rowCount) of "
                    + "\(target.byteCount)")
        }
        spend(engine.costs.copyIssue * Picoseconds(pieces), .scalar)
        let copy = Copy(
            source: source, target: target, sourceDevice: device, targetDevice: peer, issued: now, sentSemaphore: sent,
            receivedSemaphore: received, hasPriority: hasPriority, bytes: Int64(source.bytes))
        try engine.checkSource(copy)
        try engine.checkTarget(copy)
        engine.accept(copy)
    }

    /// Adds to a semaphore of any device; arrives after the latency of a remote copy.
    ///
    /// - Throws: `DeviceError` for a peer or a count that cannot be.
    public func signal(_ semaphore: Semaphore, on peer: Int, count: Int) throws(DeviceError) {
        guard peer >= 0, peer < deviceCount, count > 0 else {
            throw DeviceError(.bounds, "device \(device) signals \(count) to device \(peer) of \(deviceCount)")
        }
        spend(engine.costs.copyIssue, .scalar)
        let latency = peer == device ? engine.costs.onChipLatency : engine.costs.remoteLatency
        engine.noteSignal(semaphore.index, on: peer, from: device)
        engine.accept(signal: Int64(count), semaphore: semaphore.index, device: peer, at: now + latency)
        engine.steps[device] += 1
    }

    // MARK: Work

    /// Core time to issue one copy.
    public var copyIssueTime: Picoseconds { engine.costs.copyIssue }

    /// Latency of a copy between VMEM and SMEM.
    public var onChipCopyTime: Picoseconds { engine.costs.onChipLatency }

    /// Core time on one engine; the core does nothing else meanwhile.
    public func spend(_ time: Picoseconds, _ unit: ExecutionUnit) {
        guard time > 0 else { return }
        engine.timeline?.add(.unit(device, unit), from: now, to: now + time)
        busy[unit] += time
        now += time
    }

    /// Declares that the core reads these bytes, [rows, rowBytes], now; nil when they are only a shape.
    ///
    /// - Throws: `DeviceError` for a place outside of the buffer, or a race.
    @discardableResult
    public func read(_ region: Region) throws(DeviceError) -> UnsafeRawPointer? {
        try engine.checkAccess(region, device: device, isWrite: false)
        return engine.memory.bytes(region.buffer, device: device).map { UnsafeRawPointer($0 + offset(region)) }
    }

    /// Declares that the core writes these bytes, [rows, rowBytes], now; nil when they are only a shape.
    ///
    /// - Throws: `DeviceError` for a place outside of the buffer, or a race.
    @discardableResult
    public func write(_ region: Region) throws(DeviceError) -> UnsafeMutableRawPointer? {
        try engine.checkAccess(region, device: device, isWrite: true)
        return engine.memory.bytes(region.buffer, device: device).map { $0 + offset(region) }
    }

    private func offset(_ region: Region) -> Int { region.firstRow * region.buffer.rowBytes + region.firstByte }
}
