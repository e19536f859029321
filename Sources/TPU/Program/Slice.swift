/// A kernel as a program: the same for every device, which tells itself apart by `Core.device`.
public typealias DeviceProgram = (Core) async throws(DeviceError) -> Void

/// A simulated slice of v7x devices. Lay out buffers, semaphores and phases, then `run` a program on every device.
///
/// ```swift
/// let slice = try Slice(topology: SliceTopology(named: "v7x-4"), deviceCount: 1)
/// let tile = try slice.buffer("tile", in: .vector, rows: 2, rowBytes: 4096)
/// let loaded = slice.semaphore("loaded")
/// let result = try slice.run { core in … }
/// ```
public final class Slice {
    /// The wiring.
    public let topology: SliceTopology
    /// Devices that run the program: the first ones of the slice.
    public let deviceCount: Int
    /// The device's numbers.
    public let parameters: DeviceParameters

    private let storesTensors: Bool
    private let recordsTimeline: Bool
    private var buffers: [BufferDescription] = []
    private var used: [MemorySpace: Int] = [:]
    private var semaphoreNames: [String] = []
    private var phaseNames = ["launch"]
    private var bindings: [(buffer: Buffer, device: Int, bytes: UnsafeRawPointer)] = []
    private var results: DeviceMemory?

    /// A slice with empty memories.
    ///
    /// - Parameters:
    ///   - storesTensors: false makes every tensor buffer only a shape: time advances, nothing is computed.
    ///   - recordsTimeline: keeps what every engine did when.
    /// - Throws: `DeviceError` with code `.topology` when the slice has fewer devices.
    public init(
        topology: SliceTopology, deviceCount: Int, parameters: DeviceParameters = .default, storesTensors: Bool = true,
        recordsTimeline: Bool = false
    ) throws(DeviceError) {
        guard deviceCount >= 1, deviceCount <= topology.deviceCount else {
            throw DeviceError(
                .topology,
                "\(deviceCount) devices do not fit on \(topology.name), which has \(topology.deviceCount)"
                    + (deviceCount > topology.deviceCount ? ": \(deviceCount - topology.deviceCount) too many" : ""))
        }
        self.topology = topology
        self.deviceCount = deviceCount
        self.parameters = parameters
        self.storesTensors = storesTensors
        self.recordsTimeline = recordsTimeline
    }

    /// Lays out a buffer on every device.
    ///
    /// - Throws: `DeviceError` that names the memory, its limit and the excess.
    public func buffer(
        _ name: String, in space: MemorySpace, rows: Int, rowBytes: Int, granuleRows: Int = 1,
        granuleBytes: Int? = nil, content: BufferContent = .tensor
    ) throws(DeviceError) -> Buffer {
        let (bytes, overflows) = rows.multipliedReportingOverflow(by: rowBytes)
        let sizes = 1...Int(Int32.max)
        guard sizes.contains(rows), sizes.contains(rowBytes), !overflows else {
            throw DeviceError(.bounds, "\(name) would have \(rows) rows of \(rowBytes) bytes")
        }
        guard sizes.contains(granuleRows), sizes.contains(granuleBytes ?? rowBytes) else {
            throw DeviceError(
                .bounds, "granules of \(name) would have \(granuleRows) rows of \(granuleBytes ?? rowBytes) bytes")
        }
        let total = used[space, default: 0] + bytes
        guard total <= space.capacity else {
            throw DeviceError(
                space == .vector ? .vectorMemory : space == .scalar ? .scalarMemory : .highBandwidthMemory,
                "\(name) needs \(bytes) bytes of \(space.rawValue), \(used[space, default: 0]) of \(space.capacity) are "
                    + "taken: \(total - space.capacity) too many")
        }
        used[space] = total
        let buffer = Buffer(
            index: buffers.count, rowCount: rows, rowBytes: rowBytes, granuleRows: granuleRows,
            granuleBytes: granuleBytes ?? rowBytes, space: space)
        buffers.append(BufferDescription(name: name, handle: buffer, content: content))
        return buffer
    }

    /// Lays out a semaphore on every device.
    public func semaphore(_ name: String) -> Semaphore {
        semaphoreNames.append(name)
        return Semaphore(index: semaphoreNames.count - 1)
    }

    /// Lays out semaphores of one purpose on every device.
    public func semaphores(_ name: String, count: Int) -> SemaphoreArray {
        let first = semaphoreNames.count
        for position in 0..<count { semaphoreNames.append("\(name)[\(position)]") }
        return SemaphoreArray(first: first, count: count)
    }

    /// Names a part of the program; a program starts in the phase "launch".
    public func phase(_ name: String) -> Phase {
        phaseNames.append(name)
        return Phase(index: phaseNames.count - 1)
    }

    /// Makes a constant buffer of one device be these bytes, [rows, rowBytes], which must outlive the run.
    public func bind(_ buffer: Buffer, device: Int, to bytes: UnsafeRawPointer) {
        bindings.append((buffer, device, bytes))
    }

    /// Bytes of a memory that the layout takes on every device.
    public func bytesUsed(_ space: MemorySpace) -> Int { used[space, default: 0] }

    /// The bytes of a buffer, [rows, rowBytes], after a run with tensors.
    public func contents(of buffer: Buffer, device: Int) -> UnsafeRawBufferPointer? {
        results?.bytes(buffer, device: device).map {
            UnsafeRawBufferPointer(start: $0, count: buffer.rowCount * buffer.rowBytes)
        }
    }

    /// Runs the program on every device, from empty memories to the last instruction.
    ///
    /// - Throws: `DeviceError`: the first mistake of the program, in simulated order.
    public func run(_ program: @escaping DeviceProgram) throws(DeviceError) -> SimulationResult {
        let memory = DeviceMemory(buffers: buffers, deviceCount: deviceCount, storesTensors: storesTensors)
        for binding in bindings { memory.bind(binding.buffer, device: binding.device, to: binding.bytes) }
        let names = TimelineNames(
            buffers: buffers.map(\.name), semaphores: semaphoreNames, phases: phaseNames, topology: topology)
        let engine = SimulationEngine(
            memory: memory, topology: topology, deviceCount: deviceCount, parameters: parameters,
            semaphoreNames: semaphoreNames, timeline: recordsTimeline ? Timeline(names: names) : nil)
        engine.cores = (0..<deviceCount).map { Core(device: $0, engine: engine, phaseNames: phaseNames) }
        defer { engine.cores = [] }
        let executor = engine.executor
        for core in engine.cores { Self.start(program, core, executor) }
        engine.run()
        if let failure = engine.failure ?? engine.leftovers() { throw failure }
        results = memory
        return SimulationResult(
            engine, phaseNames: phaseNames, vectorBytes: bytesUsed(.vector), scalarBytes: bytesUsed(.scalar))
    }

    private static func start(_ program: @escaping DeviceProgram, _ core: Core, _ executor: SimulationExecutor) {
        // The simulating thread is the only one that runs the executor's tasks.
        nonisolated(unsafe) let (program, core) = (program, core)
        Task(executorPreference: executor) { await execute(program, core) }
    }

    private static func execute(_ program: DeviceProgram, _ core: Core) async {
        do {
            try await program(core)
        } catch {
            if core.engine.failure == nil { core.engine.failure = error }
        }
        core.finish()
    }
}
