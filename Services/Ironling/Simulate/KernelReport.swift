import Foundation
import FusedMoE
import TPU

/// What a simulated call took and where its time went, for people and for scripts.
struct KernelReport {
    let call: KernelCall
    let run: KernelRun
    /// What the shared expert adds to the latency, ms: against the same call without it.
    let sharedExposed: Double
    /// How the tile was looked for, if it was.
    let tuning: TileTuner.Outcome?
    private let lowerBounds: LowerBounds

    /// Runs the call a second time without its shared expert when it has one.
    init(_ call: KernelCall, _ run: KernelRun, tuning: TileTuner.Outcome? = nil) throws {
        (self.call, self.run, self.tuning) = (call, run, tuning)
        lowerBounds = try LowerBounds(call)
        guard call.options.computesShared(call.problem.shape) else {
            sharedExposed = 0
            return
        }
        var without = call
        without.options.sharedExpert = .none
        sharedExposed = Self.milliseconds(run.result.latency - (try without.run().result.latency))
    }

    static func milliseconds(_ time: Picoseconds) -> Double { Double(time) * 1e-9 }

    static func number(_ value: Double, _ digits: Int = 4) -> String { String(format: "%.\(digits)f", value) }

    /// Parts of the critical path: name for people, key for scripts, ms. They add up to the mean device's time.
    var parts: [(name: String, key: String, milliseconds: Double)] {
        let parts = run.breakdown
        return [
            ("launch", "launch", parts.launch), ("prequantisation", "prequantization", parts.prequantization),
            ("metadata", "metadata", parts.metadata), ("visible scatter", "visible_scatter", parts.visibleScatter),
            ("shared expert", "shared_own", parts.sharedExposed), ("routed experts", "routed_experts", parts.experts),
            ("visible gather", "visible_gather", parts.visibleGather), ("combine", "combine", parts.combine),
            ("barriers, output", "barriers", parts.barriers + parts.outputStore),
        ].map { ($0.0, $0.1, Self.milliseconds($0.2)) }
    }

    /// Engines: name, busy ms of the mean device (of the busiest link for ICI), ms of it hidden behind the core's work.
    var engines: [(name: String, key: String, busy: Double, hidden: Double?)] {
        let devices = run.result.devices
        func mean(_ time: (SimulationResult.DeviceUse) -> Picoseconds) -> Double {
            devices.isEmpty ? 0 : devices.reduce(0) { $0 + Self.milliseconds(time($1)) } / Double(devices.count)
        }
        let memory = mean(\.memoryBusy)
        let link = Self.milliseconds(run.result.busiestLink?.busy ?? 0)
        let stalls = run.breakdown.stalls
        func hidden(_ busy: Double, _ stalled: Picoseconds) -> Double { max(0, busy - Self.milliseconds(stalled)) }
        return [
            ("matrix units", "matrix", mean { $0.busy[.matrix] }, nil),
            ("vector unit", "vector", mean { $0.busy[.vector] }, nil),
            ("scalar unit", "scalar", mean { $0.busy[.scalar] }, nil),
            ("HBM", "hbm", memory, hidden(memory, stalls.onMemory)),
            ("busiest ICI link", "ici", link, hidden(link, stalls.onPeers)),
        ]
    }

    private var latency: Double { Self.milliseconds(run.result.latency) }

    private var weights: String { call.problem.quantization.weights == .float8E4M3 ? "fp8" : "bf16" }

    private var scales: String {
        guard call.problem.quantization.weights == .float8E4M3 else { return "no scales" }
        return call.problem.quantization.scaleBlock == .perChannel ? "a scale per channel" : "a scale per 128 inputs"
    }

    /// Where the tile comes from, if that is one of the publishers' tables.
    private var tileNote: String {
        guard tuning == nil else { return "" }
        return switch TunedTiles.origin(of: call) {
        case .tuned: " (tuned by the publishers)"
        case .fallback: " (the kernel's default: nobody tuned this call, --tune looks for a faster one)"
        case .other: ""
        }
    }

    private var ablations: [String] { call.options.ablations.map(\.rawValue).sorted() }

    func text() -> String {
        let (problem, shape) = (call.problem, call.problem.shape)
        var lines = tuning.map { TuningText.lines($0) + [""] } ?? []
        lines += [
            "Fused MoE \(call.kernel.rawValue.uppercased()), \(problem.tokens) tokens on \(problem.devices) devices of "
                + "\(call.topology.name)\(call.topology.wraps ? ", rings closed" : "")",
            "layer     hidden \(shape.hidden), intermediate \(shape.intermediate), \(shape.experts) experts, "
                + "top-\(shape.topK), shared expert \(call.options.sharedExpert.rawValue)",
            "numbers   \(weights) weights with \(scales), rows sent in \(problem.quantization.tokens.isQuantized ? "fp8" : "bf16")",
            "routing   \(call.routing), seed \(call.seed)", "tile      \(call.tile)\(tileNote)",
        ]
        if !ablations.isEmpty { lines.append("without   \(ablations.joined(separator: ", ")): not a whole call") }
        lines += ["latency   \(Self.number(latency)) ms", "", "where it went (mean device)           ms      %"]
        lines += parts.map { row($0.name, $0.milliseconds) }
        if sharedExposed != 0 {
            lines.append(
                "  the shared expert adds \(Self.number(sharedExposed)) ms to the latency; the rest of it hides the scatter"
            )
        }
        lines += ["", "engines                             busy ms   %   hidden ms"]
        lines += engines.map { engine in
            row(engine.name, engine.busy) + (engine.hidden.map { pad(Self.number($0), 12) } ?? "")
        }
        lines += ["", "bounds                                ms      %"] + bounds.map { row($0.name, $0.milliseconds) }
        lines += ["", "memory    " + memoryText]
        return lines.joined(separator: "\n")
    }

    private func row(_ name: String, _ value: Double) -> String {
        "  " + name.padding(toLength: 30, withPad: " ", startingAt: 0) + pad(Self.number(value), 10)
            + pad(Self.number(latency > 0 ? 100 * value / latency : 0, 1), 7)
    }

    private func pad(_ text: String, _ width: Int) -> String {
        String(repeating: " ", count: max(0, width - text.count)) + text
    }

    private var memoryText: String {
        let bytes = run.result.devices.map(\.memoryBytes).max() ?? 0
        let limit = Double(call.memory.vectorLimit) / 1_048_576
        return "VMEM \(Self.number(call.memory.vectorMebibytes, 1)) of \(Self.number(limit, 1)) MiB as the "
            + "tuner estimates it, \(Self.number(run.bufferMebibytes, 1)) MiB in buffers, HBM traffic \(Self.number(Double(bytes) * 1e-6, 1)) MB per device, busiest link "
            + "\(Self.number(Double(run.result.busiestLink?.bytes ?? 0) * 1e-6, 1)) MB"
    }

    private var bounds: [(name: String, key: String, milliseconds: Double)] {
        [
            ("peak matrix rate", "compute", lowerBounds.compute),
            ("weights once from HBM", "weights_once", lowerBounds.weightsOnce),
            ("weights per token tile", "weights_per_tile", lowerBounds.weightsPerTile),
            ("rows over the busiest link", "interconnect", lowerBounds.interconnect),
        ]
    }
}

extension KernelReport {
    func json() throws -> String {
        func rounded(_ value: Double) -> Double { (value * 1e6).rounded() / 1e6 }
        var breakdown = Dictionary(uniqueKeysWithValues: parts.map { ($0.key, rounded($0.milliseconds)) })
        breakdown["shared_exposed"] = rounded(sharedExposed)
        breakdown["routed_window"] = rounded(Self.milliseconds(run.breakdown.routedWindow))
        breakdown["first_products"] = rounded(Self.milliseconds(run.firstProducts))
        var busy: [String: Any] = [:]
        for engine in engines {
            var entry = ["busy_ms": rounded(engine.busy), "share": rounded(latency > 0 ? engine.busy / latency : 0)]
            if let hidden = engine.hidden { entry["hidden_ms"] = rounded(hidden) }
            busy[engine.key] = entry
        }
        let parameters = Dictionary(
            uniqueKeysWithValues: DeviceParameters.Name.allCases.map { ($0.rawValue, call.parameters[$0]) })
        var object = settings
        object["latency_ms"] = rounded(latency)
        object["tile_origin"] = TunedTiles.origin(of: call).rawValue
        object["breakdown_ms"] = breakdown
        object["bounds_ms"] = Dictionary(uniqueKeysWithValues: bounds.map { ($0.key, rounded($0.milliseconds)) })
        object["vmem_mib"] = rounded(call.memory.vectorMebibytes)
        object["vmem_buffers_mib"] = rounded(run.bufferMebibytes)
        object["vmem_limit_mib"] = rounded(Double(call.memory.vectorLimit) / 1_048_576)
        object["fits"] = true
        object["busy"] = busy
        object["hbm_bytes"] = run.result.devices.map(\.memoryBytes).max() ?? 0
        object["busiest_link_bytes"] = run.result.busiestLink?.bytes ?? 0
        object["parameters"] = parameters
        if let tuning { object["tuning"] = TuningText.object(tuning) }
        return try Self.json(object)
    }

    private var settings: [String: Any] {
        let (problem, shape) = (call.problem, call.problem.shape)
        return [
            "kernel": call.kernel.rawValue, "tokens": problem.tokens, "ep": problem.devices,
            "slice": call.topology.name, "wrap": call.topology.wraps, "tile": TuningText.sizes(call.tile),
            "seed": Int(call.seed),
            "shape": [
                "hidden": shape.hidden, "intermediate": shape.intermediate, "experts": shape.experts,
                "top_k": shape.topK,
            ],
            "activation_quant": problem.quantization.tokens.isQuantized,
            "shared_expert": call.options.sharedExpert.rawValue, "metadata": call.options.metadata.rawValue,
            "weights": weights, "scale_block": problem.quantization.scaleBlock.rawValue,
            "prequant": call.options.prequantization.rawValue, "active_list": call.options.usesActiveList,
            "ablate": ablations, "routing": call.routing.description,
        ]
    }

    static func json(_ object: [String: Any]) throws -> String {
        let data = try JSONSerialization.data(withJSONObject: object, options: [.prettyPrinted, .sortedKeys])
        return String(decoding: data, as: UTF8.self)
    }
}

/// The same layer and tokens on both kernels.
struct KernelComparison {
    private let reports: [KernelReport]

    /// Runs the kernel that `report` is not about, with its own tuned tile and element types.
    init(_ call: KernelCall, _ report: KernelReport) throws {
        let other: KernelVersion = call.kernel == .v2 ? .v1 : .v2
        var problem = call.problem
        let isFloat8 = problem.quantization.weights == .float8E4M3
        problem.quantization.tokens = other == .v2 && isFloat8 ? .float8(.faithful) : .bfloat16
        var options = call.options
        if other == .v1 { (options.usesActiveList, options.prequantization) = (true, .perTile) }
        let otherCall = try KernelCall(
            kernel: other, problem: problem, options: options, topology: call.topology,
            parameters: call.parameters, routing: call.routing, seed: call.seed)
        let otherReport = try KernelReport(otherCall, otherCall.run())
        reports = other == .v1 ? [otherReport, report] : [report, otherReport]
    }

    func plot() -> KernelPlot {
        let call = reports[1].call
        let shape = call.problem.shape
        return KernelPlot(
            title: "Fused MoE V1 and V2: \(call.problem.tokens) tokens on \(call.problem.devices) devices of "
                + "\(call.topology.name) (simulated)",
            subtitle: "hidden \(shape.hidden), intermediate \(shape.intermediate), \(shape.experts) experts, top-"
                + "\(shape.topK); V1 sends bf16, V2 \(call.problem.quantization.tokens.isQuantized ? "fp8" : "bf16"); "
                + "mean over the devices",
            parts: reports[1].parts.map(\.name), engines: reports[1].engines.map(\.name),
            kernels: reports.map { report in
                let latency = KernelReport.milliseconds(report.run.result.latency)
                return KernelPlot.Kernel(
                    name: report.call.kernel.rawValue.uppercased(), milliseconds: latency,
                    parts: report.parts.map(\.milliseconds), busy: report.engines.map { $0.busy / latency })
            })
    }
}
