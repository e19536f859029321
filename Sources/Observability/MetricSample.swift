/// A figure that is kept elsewhere and shown with the metrics.
public struct MetricSample: Sendable, Equatable {
    /// What it is.
    public enum Kind: String, Sendable {
        /// It only grows.
        case counter
        /// It goes up and down.
        case gauge
    }

    /// Name of the metric.
    public var name: String
    /// What it is.
    public var kind: Kind
    /// One sentence.
    public var help: String
    /// Labels.
    public var labels: [String: String]
    /// The figure.
    public var value: Double

    /// A figure.
    public init(_ name: String, _ kind: Kind, help: String, labels: [String: String] = [:], value: Double) {
        self.name = name
        self.kind = kind
        self.help = help
        self.labels = labels
        self.value = value
    }
}
