/// The Prometheus text exposition format, version 0.0.4.
enum PrometheusText {
    /// A valid name: letters, digits, `_` and `:`, not beginning with a digit; other characters become `_`.
    static func name(_ name: String, allowsColon: Bool = true) -> String {
        let letters = name.utf8.prefix(128).map { byte -> Character in
            switch byte {
            case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"),
                UInt8(ascii: "0")...UInt8(ascii: "9"):
                return Character(Unicode.Scalar(byte))
            case UInt8(ascii: ":") where allowsColon: return ":"
            default: return "_"
            }
        }
        guard let first = letters.first, !first.isNumber else { return "_" + String(letters) }
        return String(letters)
    }

    /// Labels without the braces, sorted by name; values are cut at 256 characters.
    static func labels(_ labels: [String: String]) -> String {
        labels.sorted { $0.key < $1.key }.map { key, value in
            "\(name(key, allowsColon: false))=\"\(escaped(String(value.prefix(256)), quotes: true))\""
        }.joined(separator: ",")
    }

    static func header(_ name: String, help: String, kind: String, to out: inout String) {
        out += "# HELP \(name) \(escaped(help, quotes: false))\n# TYPE \(name) \(kind)\n"
    }

    static func line(_ name: String, _ labels: String, _ value: Double, to out: inout String) {
        out += name
        if !labels.isEmpty { out += "{\(labels)}" }
        out += " \(number(value))\n"
    }

    static func series(
        _ name: String, _ labels: String, _ instrument: MetricsRegistry.Instrument, to out: inout String
    ) {
        switch instrument {
        case .counter(let counter):
            out += labels.isEmpty ? name : "\(name){\(labels)}"
            out += " \(counter.value)\n"
        case .gauge(let gauge): line(name, labels, gauge.value, to: &out)
        case .histogram(let histogram):
            let snapshot = histogram.snapshot
            let prefix = labels.isEmpty ? "" : labels + ","
            var sum: UInt64 = 0
            for (bound, count) in zip(snapshot.bounds + [.infinity], snapshot.counts) {
                sum &+= count
                line("\(name)_bucket", "\(prefix)le=\"\(number(bound))\"", Double(sum), to: &out)
            }
            line("\(name)_sum", labels, snapshot.sum, to: &out)
            line("\(name)_count", labels, Double(sum), to: &out)
        }
    }

    /// A number as Prometheus reads it; whole numbers without a fraction.
    static func number(_ value: Double) -> String {
        if value.isNaN { return "NaN" }
        if value.isInfinite { return value > 0 ? "+Inf" : "-Inf" }
        if value == value.rounded(), abs(value) < 0x1p53 { return String(Int64(value)) }
        return String(value)
    }

    private static func escaped(_ text: String, quotes: Bool) -> String {
        var out = ""
        for scalar in text.unicodeScalars {
            switch scalar {
            case "\\": out += "\\\\"
            case "\n": out += "\\n"
            case "\"" where quotes: out += "\\\""
            default: out.unicodeScalars.append(scalar)
            }
        }
        return out
    }
}
