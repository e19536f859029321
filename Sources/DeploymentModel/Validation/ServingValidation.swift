import Foundation
import FusedMoE
import TPU

/// Every published serving and memory figure beside what we get, and whether ours drifted from what was committed.
public struct ServingValidation: Sendable {
    /// One number beside ours.
    public struct Comparison: Sendable, Equatable {
        /// The published number.
        public let figure: ServingFigure
        /// Ours, in its unit.
        public let ours: Double

        /// Signed error: percent of the published number; points where that is a percentage itself; 0 when a published
        /// sign is right.
        public var error: Double {
            switch figure.use {
            case .sign: return ours < figure.published ? 0 : .infinity
            case .exact where figure.unit != "KiB":
                let unit = figure.published == figure.published.rounded() ? 1.0 : 10
                return 100 * ((ours * unit).rounded() / unit - figure.published) / figure.published
            default:
                return figure.unit == "percent"
                    ? ours - figure.published : 100 * (ours - figure.published) / figure.published
            }
        }

        /// True when the error, in percent of the published number, is within what we aim for.
        public var isWithinAim: Bool {
            figure.unit == "percent"
                ? 100 * abs(ours - figure.published) <= figure.aim * figure.published : error.magnitude <= figure.aim
        }
    }

    /// The step costs behind them.
    public let costs: CostParameters
    /// All numbers, in the order of the published file.
    public let comparisons: [Comparison]
    /// What the runs came to, by name.
    public let measurements: [(name: String, measurement: ServingMeasurement)]
    /// What an assumption changes: TTFT in ms and prefill gain in percent at the ends of its range.
    public let sensitivity: [Sensitivity]
    /// Steps for the picture: decode and prefill of the runs above.
    public let steps: [(name: String, cost: StepCost)]
    /// What a miss would need, or what else is known about a number.
    public let notes: [String]

    /// A parameter at one end of its range.
    public struct Sensitivity: Sendable, Equatable {
        /// The parameter's name in the file, and the value.
        public let assumption: String
        /// TTFT of the cookbook row, ms.
        public let firstToken: Double
        /// TPOT of the cookbook row, ms.
        public let token: Double
        /// Prefill gain, percent.
        public let prefillGain: Double
    }

    /// Runs everything; without `includesSensitivity` only what the figures need.
    ///
    /// - Throws: `DeploymentError`, and what the runner throws.
    public init(
        runner: some ServingRunner, costs: CostParameters = .default, device: DeviceParameters = .default,
        includesSensitivity: Bool = true, progress: (String) -> Void = { _ in }
    ) throws {
        self.costs = costs
        var runs = ValidationRuns(runner: runner, costs: costs, device: device)
        comparisons = try ServingFigure.all().map { figure in
            progress(figure.name)
            return Comparison(figure: figure, ours: try runs.value(of: figure))
        }
        progress("sensitivity")
        sensitivity = includesSensitivity ? try runs.sensitivity() : []
        notes = try runs.notes(comparisons)
        steps = try runs.steps()
        measurements = runs.measurements
    }

    /// The numbers that are further off than we aim for.
    public var misses: [Comparison] { comparisons.filter { !$0.isWithinAim } }
}

extension ServingValidation {
    /// Largest relative change of a committed number that is not drift.
    public static let driftTolerance = 1e-4

    /// Numbers by name, as they are committed.
    public var numbers: [String: Double] {
        Dictionary(comparisons.map { ($0.figure.name, $0.ours) }, uniquingKeysWith: { first, _ in first })
    }

    /// The committed numbers.
    ///
    /// - Throws: `DeploymentError` with code `.figures` when the file is broken.
    public static func committedNumbers() throws(DeploymentError) -> [String: Double] {
        do {
            return try JSONDecoder().decode([String: Double].self, from: Data(PackageResources.predictions_json))
        } catch { throw DeploymentError(.figures, "the committed predictions cannot be read: \(error)") }
    }

    /// The content of the committed file for these numbers.
    public func predictionFile() -> Data {
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.prettyPrinted, .sortedKeys, .withoutEscapingSlashes]
        return (try? encoder.encode(numbers.mapValues { ($0 * 1e6).rounded() / 1e6 })) ?? Data()
    }

    /// A sentence per number that is not the committed one any more.
    public func drift(from committed: [String: Double]) -> [String] {
        let changed = numbers.sorted { $0.key < $1.key }.compactMap { name, ours -> String? in
            guard let known = committed[name] else { return "\(name) has no committed number" }
            let isSame = abs(ours - known) <= Self.driftTolerance * max(abs(known), 1e-2)
            return isSame ? nil : "\(name) is \(ours), committed is \(known)"
        }
        let gone = committed.keys.filter { numbers[$0] == nil }.sorted()
        return changed + gone.map { "\($0) is committed and was not computed" }
    }
}
