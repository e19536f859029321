/// The units of a core; it uses one at a time.
public enum ExecutionUnit: Int, Sendable, CaseIterable {
    /// Loops, addresses, issuing copies.
    case scalar
    /// Elementwise work.
    case vector
    /// The two 256×256 matrix units.
    case matrix

    /// Name in reports and timelines.
    public var name: String {
        switch self {
        case .scalar: "scalar"
        case .vector: "vector"
        case .matrix: "matrix"
        }
    }
}

/// Time each unit of a core was busy.
public struct EngineBusy: Sendable, Equatable {
    private var times: (Picoseconds, Picoseconds, Picoseconds) = (0, 0, 0)

    /// The time of one unit.
    public internal(set) subscript(_ unit: ExecutionUnit) -> Picoseconds {
        get {
            switch unit {
            case .scalar: times.0
            case .vector: times.1
            case .matrix: times.2
            }
        }
        set {
            switch unit {
            case .scalar: times.0 = newValue
            case .vector: times.1 = newValue
            case .matrix: times.2 = newValue
            }
        }
    }

    /// Two are equal when all times are.
    public static func == (_ one: EngineBusy, _ other: EngineBusy) -> Bool { one.times == other.times }
}

/// What a run took, and what it used.
public struct SimulationResult: Sendable, Equatable {
    /// A part of the program.
    public struct PhaseTime: Sendable, Equatable {
        /// Its name.
        public let name: String
        /// Core time in it: mean over devices.
        public let time: Picoseconds
        /// Of that, time spent waiting.
        public let stalled: Picoseconds
    }

    /// One device.
    public struct DeviceUse: Sendable, Equatable {
        /// When its program ended.
        public let finished: Picoseconds
        /// Its core's units.
        public let busy: EngineBusy
        /// Time HBM moved bytes.
        public let memoryBusy: Picoseconds
        /// Bytes read from and written to HBM.
        public let memoryBytes: Int64
    }

    /// One directed link.
    public struct LinkUse: Sendable, Equatable {
        /// Where it leaves, and in which direction.
        public let name: String
        /// The chip it leaves.
        public let chip: Int
        /// Time it moved bytes.
        public let busy: Picoseconds
        /// Bytes it moved.
        public let bytes: Int64
    }

    /// From the first instruction to the end of the last device.
    public let latency: Picoseconds
    /// The program's parts in the order they were laid out; they add up to the mean over devices of `finished`.
    public let phases: [PhaseTime]
    /// The devices.
    public let devices: [DeviceUse]
    /// The links between chips that moved anything.
    public let links: [LinkUse]
    /// VMEM of every device that the layout takes.
    public let vectorBytes: Int
    /// SMEM of every device that the layout takes.
    public let scalarBytes: Int
    /// Events that were simulated.
    public let eventCount: Int
    /// What every engine did when, if it was recorded.
    public let timeline: Timeline?

    /// The link that was busy longest.
    public var busiestLink: LinkUse? { links.max { $0.busy < $1.busy } }

    /// The mean time of a phase; 0 if there is none of this name.
    public func time(of phase: String) -> Picoseconds { phases.first { $0.name == phase }?.time ?? 0 }

    init(_ engine: SimulationEngine, phaseNames: [String], vectorBytes: Int, scalarBytes: Int) {
        let count = Picoseconds(engine.deviceCount)
        latency = engine.cores.map(\.now).max() ?? 0
        phases = phaseNames.indices.map { index in
            PhaseTime(
                name: phaseNames[index], time: engine.cores.reduce(0) { $0 + $1.phaseTimes[index] } / count,
                stalled: engine.cores.reduce(0) { $0 + $1.stalls[index] } / count)
        }
        devices = zip(engine.cores, engine.memoryServers).map { core, memory in
            DeviceUse(finished: core.now, busy: core.busy, memoryBusy: memory.busy, memoryBytes: memory.bytes)
        }
        links = engine.links.prefix(engine.topology.linkCount).enumerated().compactMap { index, link in
            link.bytes == 0
                ? nil
                : LinkUse(
                    name: engine.topology.linkName(index), chip: index / 6, busy: link.busy, bytes: link.bytes)
        }
        self.vectorBytes = vectorBytes
        self.scalarBytes = scalarBytes
        eventCount = engine.eventCount
        timeline = engine.timeline
    }

    /// Two are equal when all times and counts are; timelines are not compared.
    public static func == (_ one: SimulationResult, _ other: SimulationResult) -> Bool {
        one.latency == other.latency && one.phases == other.phases && one.devices == other.devices
            && one.links == other.links && one.eventCount == other.eventCount
    }
}
