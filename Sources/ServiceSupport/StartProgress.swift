/// What the services of a set are at while they start, as lines to show. A pure value; times are microseconds.
package struct StartProgress {
    /// A service's line is repeated no sooner, where lines stay.
    package static let pause: UInt64 = 10_000_000

    private var latest: [(title: String, text: String)] = []
    private var shown: [String: UInt64] = [:]

    /// Nobody is at anything yet.
    package init() {}

    /// Takes what a service is at; empty when it is done.
    ///
    /// - Returns: the line to show where lines stay: at the first word of a service and then every ten seconds.
    package mutating func note(_ title: String, _ text: String, now: UInt64) -> String? {
        latest.removeAll { $0.title == title }
        guard !text.isEmpty else {
            shown[title] = nil
            return nil
        }
        latest.append((title, text))
        latest.sort { $0.title < $1.title }
        if let last = shown[title], now < last + Self.pause { return nil }
        shown[title] = now
        return "\(title): \(text)"
    }

    /// One line for all, where a line can be replaced; nil when nobody is at anything.
    package var line: String? {
        latest.isEmpty ? nil : latest.map { "\($0.title): \($0.text)" }.joined(separator: "; ")
    }
}
