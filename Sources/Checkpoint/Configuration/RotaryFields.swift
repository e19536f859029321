import JSON

/// YaRN position scaling (docs/model.md#positions).
public struct YaRNScaling: Sendable, Equatable {
    /// Context extension factor.
    public let factor: Double
    /// Context length the model was trained at.
    public let originalMaximumPositions: Int
    /// Rotations above which a dimension keeps its frequency.
    public let betaFast: Double
    /// Rotations below which a dimension is interpolated.
    public let betaSlow: Double
    /// Magnitude scale of cosine and sine, with `magnitudeScaleAllDimensions`.
    public let magnitudeScale: Double?
    /// Magnitude scale that also enters the MLA softmax scale.
    public let magnitudeScaleAllDimensions: Double?
    /// Factor on cosine and sine in place of the one that follows from `factor` and the magnitude scales.
    public let attentionFactor: Double?
    /// True when the bounds of the interpolated dimensions are rounded to whole ones.
    public let truncates: Bool
}

/// What the fields of `config.json` about rotary positions say together: `rope_theta` and `rope_scaling`, or
/// `rope_parameters` in their place or beside them, as newer files have it. What is said twice must be the same.
struct RotaryFields {
    private static let names = ["rope_scaling", "rope_parameters"]
    private static let known: Set = [
        "rope_type", "type", "rope_theta", "partial_rotary_factor", "factor", "original_max_position_embeddings",
        "beta_fast", "beta_slow", "mscale", "mscale_all_dim", "attention_factor", "truncate", "finetuned",
    ]

    let theta: Double
    let partialFactor: Double
    let yarn: YaRNScaling?
    private(set) var notes: [String] = []

    init(_ fields: ConfigurationFields, maximumPositions: Int) throws(CheckpointError) {
        var objects: [ConfigurationFields] = []
        for name in Self.names {
            guard let inner = try fields.object(name) else { continue }
            try Self.refuseUnknown(inner)
            objects.append(inner)
        }
        theta = try Self.agreed("rope_theta", [fields] + objects, in: 1.0001...1e12, fallback: nil)
        partialFactor = try Self.agreed("partial_rotary_factor", [fields] + objects, in: 0.001...1, fallback: 1)
        var scalings: [YaRNScaling?] = []
        for inner in objects {
            scalings.append(try Self.scaling(inner, maximumPositions: maximumPositions))
            notes += try Self.unused(inner)
        }
        guard scalings.allSatisfy({ $0 == scalings[0] }) else {
            throw fields.refuse("rope_parameters", "contradicts rope_scaling: take one of them out")
        }
        yarn = scalings.first ?? nil
        guard let yarn else { return }
        let reached = yarn.factor * Double(yarn.originalMaximumPositions)
        if reached != Double(maximumPositions) {
            notes.append(
                "config.json: rope_scaling reaches \(Self.plain(reached)) positions (factor × original), "
                    + "max_position_embeddings is \(maximumPositions)")
        }
    }

    private static func plain(_ number: Double) -> String {
        Int(exactly: number).map { "\($0)" } ?? "\(number)"
    }

    private static func refuseUnknown(_ inner: ConfigurationFields) throws(CheckpointError) {
        for member in inner.members where member.value != .null && !known.contains(member.name) {
            if case .object = member.value {
                throw inner.refuse(member.name, "is a set of parameters for some layers, which is not supported")
            }
            _ = try kind(inner)
            throw inner.refuse(member.name, "is not known and would change positions")
        }
    }

    /// The number that all of `objects` that have the field give it.
    private static func agreed(
        _ name: String, _ objects: [ConfigurationFields], in range: ClosedRange<Double>, fallback: Double?
    ) throws(CheckpointError) -> Double {
        var found: Double?
        for object in objects where object.value(name) != nil {
            let number = try object.number(name, in: range)
            if let found, found != number {
                throw object.refuse(name, "is \(number), and \(found) elsewhere in the file: take one of them out")
            }
            found = number
        }
        guard let found = found ?? fallback else { throw objects[0].refuse(name, "is missing") }
        return found
    }

    /// "default" or "yarn"; everything else is refused.
    private static func kind(_ inner: ConfigurationFields) throws(CheckpointError) -> String {
        let (current, legacy) = (try inner.text("rope_type"), try inner.text("type"))
        if let current, let legacy, current != legacy {
            throw inner.refuse("rope_type", "is \(current), but type is \(legacy): take one of them out")
        }
        let implied = inner.value("factor") == nil ? "default" : "missing"
        let kind = current ?? legacy ?? implied
        guard kind == "default" || kind == "yarn" else {
            throw inner.refuse("rope_type", "must be default or yarn, not \(kind)")
        }
        return kind
    }

    /// A sentence for each field of YaRN beside a kind that does not read it.
    private static func unused(_ inner: ConfigurationFields) throws(CheckpointError) -> [String] {
        guard try kind(inner) == "default" else { return [] }
        let used: Set = ["rope_type", "type", "rope_theta", "partial_rotary_factor"]
        return inner.members.filter { $0.value != .null && !used.contains($0.name) }.map { member in
            "\(inner.path): \(member.name) is not used, because rope_type is default"
        }
    }

    private static func scaling(
        _ inner: ConfigurationFields, maximumPositions: Int
    ) throws(CheckpointError) -> YaRNScaling? {
        guard try kind(inner) == "yarn" else { return nil }
        func optional(_ name: String, in range: ClosedRange<Double> = 0...100) throws(CheckpointError) -> Double? {
            guard inner.value(name) != nil else { return nil }
            let number = try inner.number(name, in: range)
            return number == 0 ? nil : number
        }
        return YaRNScaling(
            factor: try inner.number("factor", in: 1...4096),
            originalMaximumPositions: try inner.integer(
                "original_max_position_embeddings", in: 1...(1 << 24), fallback: maximumPositions),
            betaFast: try inner.number("beta_fast", in: 0.001...1e6, fallback: 32),
            betaSlow: try inner.number("beta_slow", in: 0.001...1e6, fallback: 1),
            magnitudeScale: try optional("mscale"),
            magnitudeScaleAllDimensions: try optional("mscale_all_dim"),
            attentionFactor: try optional("attention_factor", in: 1e-4...1e4),
            truncates: try inner.flag("truncate", fallback: true))
    }
}
