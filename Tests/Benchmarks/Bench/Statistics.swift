import Foundation

/// Measured values of one thing.
struct Samples {
    var values: [Double] = []

    /// The value below which the part `quantile` of all values lies.
    func percentile(_ quantile: Double) -> Double {
        guard !values.isEmpty else { return .nan }
        let sorted = values.sorted()
        return sorted[min(sorted.count - 1, Int(quantile * Double(sorted.count)))]
    }

    var median: Double { percentile(0.5) }
}

/// Seconds of a monotonic clock.
func seconds() -> Double { Double(DispatchTime.now().uptimeNanoseconds) * 1e-9 }

/// Says on standard error what is going on, with the seconds since the start.
struct Progress {
    private let started = seconds()

    func callAsFunction(_ text: String) {
        let time = String(format: "%5.1f s", seconds() - started)
        FileHandle.standardError.write(Data("[\(time)] \(text)\n".utf8))
    }

    var elapsed: Double { seconds() - started }
}

/// Why a benchmark could not run; `description` is the sentence to print.
struct BenchError: Error, CustomStringConvertible {
    let description: String

    init(_ description: String) { self.description = description }
}

extension Double {
    /// Three significant digits or so, for tables.
    var short: String {
        guard isFinite else { return "–" }
        return String(format: magnitude >= 100 ? "%.0f" : magnitude >= 10 ? "%.1f" : "%.2f", self)
    }

    /// As a percentage.
    var percent: String { String(format: "%.1f %%", 100 * self) }
}
