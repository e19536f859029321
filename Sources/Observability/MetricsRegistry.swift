import Synchronization

/// The metrics of a process by name and labels. Instruments are asked for once and then used without the registry.
///
/// Bounded: beyond `maximumSeries`, and for a name that already has another kind, an instrument is given out that works
/// but is not exposed, and `ironling_metrics_refused_total` counts it.
public final class MetricsRegistry: Sendable {
    /// What a series is.
    package enum Instrument: Sendable {
        case counter(Counter)
        case gauge(Gauge)
        case histogram(Histogram)

        var kind: String {
            switch self {
            case .counter: "counter"
            case .gauge: "gauge"
            case .histogram: "histogram"
            }
        }
    }

    private struct Family: Sendable {
        let help: String
        let kind: String
        var series: [String: Instrument] = [:]
    }

    private struct State: Sendable {
        var families: [String: Family] = [:]
        var seriesCount = 0
        var refused: UInt64 = 0
    }

    private let maximumSeries: Int
    private let state = Mutex(State())

    /// A registry of at most so many series.
    public init(maximumSeries: Int = 4096) { self.maximumSeries = max(0, maximumSeries) }

    /// The counter of this name and labels; its name should end in `_total`.
    public func counter(_ name: String, help: String, labels: [String: String] = [:]) -> Counter {
        let found = instrument(name, help, labels) { .counter(Counter()) }
        guard case .counter(let counter) = found else { return Counter() }
        return counter
    }

    /// The gauge of this name and labels.
    public func gauge(_ name: String, help: String, labels: [String: String] = [:]) -> Gauge {
        let found = instrument(name, help, labels) { .gauge(Gauge()) }
        guard case .gauge(let gauge) = found else { return Gauge() }
        return gauge
    }

    /// The histogram of this name and labels. The bounds count only when it is new; its name should end in its unit.
    public func histogram(
        _ name: String, help: String, labels: [String: String] = [:], bounds: [Double]
    ) -> Histogram {
        let found = instrument(name, help, labels) { .histogram(Histogram(bounds: bounds)) }
        guard case .histogram(let histogram) = found else { return Histogram(bounds: bounds) }
        return histogram
    }

    private func instrument(
        _ name: String, _ help: String, _ labels: [String: String], _ make: () -> Instrument
    ) -> Instrument {
        let name = PrometheusText.name(name)
        let key = PrometheusText.labels(labels)
        let new = make()
        return state.withLock { state in
            var family = state.families[name] ?? Family(help: help, kind: new.kind)
            if let old = family.series[key], old.kind == new.kind { return old }
            guard family.kind == new.kind, state.seriesCount < maximumSeries else {
                state.refused += 1
                return new
            }
            family.series[key] = new
            state.families[name] = family
            state.seriesCount += 1
            return new
        }
    }

    /// The number of a counter or gauge, or the count of a histogram; nil if there is none of this name and labels.
    public func value(_ name: String, labels: [String: String] = [:]) -> Double? {
        let found = state.withLock {
            $0.families[PrometheusText.name(name)]?.series[PrometheusText.labels(labels)]
        }
        switch found {
        case .counter(let counter): return Double(counter.value)
        case .gauge(let gauge): return gauge.value
        case .histogram(let histogram): return Double(histogram.snapshot.count)
        case nil: return nil
        }
    }

    /// Everything in the Prometheus text format, version 0.0.4, sorted by name and labels, together with figures that are
    /// kept elsewhere. A figure whose name has another kind here is left out.
    public func prometheusText(adding samples: [MetricSample] = []) -> String {
        let state = state.withLock { $0 }
        var out = ""
        let more = Dictionary(grouping: samples) { PrometheusText.name($0.name) }
        for name in Set(state.families.keys).union(more.keys).sorted() {
            let (family, others) = (state.families[name], more[name] ?? [])
            let kind = family?.kind ?? others[0].kind.rawValue
            PrometheusText.header(name, help: family?.help ?? others[0].help, kind: kind, to: &out)
            for (labels, instrument) in (family?.series ?? [:]).sorted(by: { $0.key < $1.key }) {
                PrometheusText.series(name, labels, instrument, to: &out)
            }
            let lines = others.filter { $0.kind.rawValue == kind }.map { (PrometheusText.labels($0.labels), $0.value) }
            for (labels, value) in lines.sorted(by: { $0.0 < $1.0 }) {
                PrometheusText.line(name, labels, value, to: &out)
            }
        }
        let refused = "ironling_metrics_refused_total"
        guard state.families[refused] == nil else { return out }
        PrometheusText.header(refused, help: "Series that were not registered.", kind: "counter", to: &out)
        PrometheusText.line(refused, "", Double(state.refused), to: &out)
        return out
    }
}
