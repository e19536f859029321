import Foundation
import TPU

/// All published kernel figures beside ours, what the numbers depend on, and whether they drifted from what was
/// committed.
public struct Validation: Sendable {
    /// Every figure, in the file's order.
    public let comparisons: [FigureComparison]
    /// The tile sweep at 16,384 tokens: rows staged and per call, ms; nil where the tile is refused.
    public let sweep: [(tile: String, milliseconds: Double?)]
    /// What an assumption changes: name, and ms of prefill in fp8, prefill in bf16 and decode.
    public let sensitivity: [(assumption: String, milliseconds: [Double])]
    /// Slope of the stand-alone all-to-all, ps per byte: published and ours.
    public let exchangeSlope: (published: Double, ours: Double)
    /// The stand-alone all-to-all with `rowCost` per row, ms: bf16, then fp8.
    public let exchangeWithRowCost: [Double]

    /// What a stand-alone scatter of single rows costs beside its bytes on a similar model: 84 ns per row of a device,
    /// half of it on each link, because the busiest link carries the rows of two devices (docs/kernels.md#published-figures). Nanoseconds.
    public static let rowCost = 42.0

    /// Runs everything.
    ///
    /// - progress: called before every piece with its name.
    /// - Throws: `FusedMoEError` when a call cannot be simulated.
    public init(
        parameters: DeviceParameters = .default, progress: (String) -> Void = { _ in }
    ) throws(FusedMoEError) {
        let calls = FigureCalls(parameters: parameters)
        var comparisons: [FigureComparison] = []
        for figure in try PublishedFigure.kernelFigures() {
            progress(figure.id)
            comparisons.append(try FigureComparison(figure, calls))
        }
        self.comparisons = comparisons
        progress("tile sweep")
        sweep = try Self.sweep(calls)
        sensitivity = try Self.sensitivity(parameters, calls, progress)
        let exchange = comparisons.first { $0.figure.id == "all-to-all-flat" }
        func slope(_ values: [Double]?) -> Double {
            guard let values, values.count == 2 else { return 0 }
            return (values[0] - values[1]) * 1e9 / Double(4096 * 8192)
        }
        exchangeSlope = (slope(exchange?.figure.values), slope(exchange?.ours))
        progress("all-to-all with a cost per row")
        let costly = FigureCalls(parameters: Self.with(parameters, rowCost: Self.rowCost))
        exchangeWithRowCost = try [costly.allToAll(valueBytes: 2), costly.allToAll(valueBytes: 1)]
    }

    /// Seeds of the routing besides 0, with which all figures are compared.
    private static let routingSeeds: ClosedRange<UInt64> = 1...8

    private static func with(_ parameters: DeviceParameters, rowCost: Double) -> DeviceParameters {
        var changed = parameters
        changed[.linkCopyCost] = rowCost
        return changed
    }

    /// Median magnitude of the errors of all figures that were predicted: percent, those of figures that are percentages
    /// in points.
    public var medianPredictedError: Double { median(\.errors) }

    /// The same with all errors in percent of the published number.
    public var medianRelativePredictedError: Double { median(\.relativeErrors) }

    private func median(_ errors: KeyPath<FigureComparison, [Double]>) -> Double {
        let errors = comparisons.filter { $0.figure.use == .predict }.flatMap { $0[keyPath: errors] }
            .map(\.magnitude).sorted()
        guard !errors.isEmpty else { return 0 }
        return (errors[(errors.count - 1) / 2] + errors[errors.count / 2]) / 2
    }

    private static func sweep(_ calls: FigureCalls) throws(FusedMoEError) -> [(tile: String, milliseconds: Double?)] {
        var rows: [(tile: String, milliseconds: Double?)] = []
        for size in ["bts=128,btc=128", "bts=160,btc=80", "bts=256,btc=128", "bts=384,btc=128"] {
            do {
                rows.append(
                    (size, try calls.milliseconds(FigureCalls.Setup.prefill.with { $0.tile = "bt=128,bf=512," + size }))
                )
            } catch {
                guard error.code == .vectorMemory else { throw error }
                rows.append((size, nil))
            }
        }
        return rows
    }

    private static func sensitivity(
        _ parameters: DeviceParameters, _ calls: FigureCalls, _ progress: (String) -> Void
    ) throws(FusedMoEError) -> [(assumption: String, milliseconds: [Double])] {
        func row(_ calls: FigureCalls) throws(FusedMoEError) -> [Double] {
            [
                try calls.milliseconds(.prefill),
                try calls.milliseconds(FigureCalls.Setup.prefill.with { $0.isQuantized = false }),
                try calls.milliseconds(FigureCalls.Setup.decode.with { $0.isShared = true }),
            ]
        }
        var rows = [("as calibrated", try row(calls))]
        progress("sensitivity: z rings closed")
        rows.append(("z rings closed (wrap on)", try row(FigureCalls(parameters: parameters, wraps: true))))
        for cost in [20, rowCost] {
            progress("sensitivity: \(Int(cost)) ns per row on a link")
            let changed = with(parameters, rowCost: cost)
            rows.append(("\(Int(cost)) ns per row on every link", try row(FigureCalls(parameters: changed))))
        }
        progress("sensitivity: HBM in order")
        var changed = parameters
        changed.arbitration = parameters.arbitration == .fair ? .fifo : .fair
        rows.append(("HBM arbitration \(changed.arbitration.rawValue)", try row(FigureCalls(parameters: changed))))
        var (least, most) = (rows[0].1, rows[0].1)
        for seed in routingSeeds {
            progress("sensitivity: routing seed \(seed)")
            let milliseconds = try row(FigureCalls(parameters: parameters, seed: seed))
            for index in milliseconds.indices {
                least[index] = min(least[index], milliseconds[index])
                most[index] = max(most[index], milliseconds[index])
            }
        }
        rows.append(("fastest of nine routing seeds", least))
        rows.append(("slowest of nine routing seeds", most))
        return rows
    }
}

extension Validation {
    /// Largest relative change of a committed number that is not drift.
    public static let driftTolerance = 1e-4

    /// Numbers by figure, as they are committed.
    public var numbers: [String: [Double]] {
        Dictionary(comparisons.map { ($0.figure.id, $0.ours) }, uniquingKeysWith: { first, _ in first })
    }

    /// The committed numbers.
    ///
    /// - Throws: `FusedMoEError` with code `.parameters` when the file is broken.
    public static func committedNumbers() throws(FusedMoEError) -> [String: [Double]] {
        do {
            return try JSONDecoder().decode([String: [Double]].self, from: Data(PackageResources.predictions_json))
        } catch { throw FusedMoEError(.parameters, "the committed predictions cannot be read: \(error)") }
    }

    /// The content of the committed file for these numbers.
    public func predictionFile() -> Data {
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.prettyPrinted, .sortedKeys]
        let rounded = numbers.mapValues { $0.map { ($0 * 1e6).rounded() / 1e6 } }
        return (try? encoder.encode(rounded)) ?? Data()
    }

    /// A sentence per figure whose numbers are not the committed ones any more.
    public func drift(from committed: [String: [Double]]) -> [String] { Self.drift(numbers, from: committed) }

    static func drift(_ numbers: [String: [Double]], from committed: [String: [Double]]) -> [String] {
        numbers.sorted { $0.key < $1.key }.compactMap { id, ours in
            guard let known = committed[id] else { return "\(id) has no committed numbers" }
            let isSame =
                known.count == ours.count
                && zip(ours, known).allSatisfy { abs($0 - $1) <= driftTolerance * max(abs($1), 1e-2) }
            return isSame ? nil : "\(id) is \(ours), committed are \(known)"
        }
    }
}
