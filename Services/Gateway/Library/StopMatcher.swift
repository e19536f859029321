/// Finds stop strings in text that arrives in pieces, and never lets a piece of one out before it is decided.
///
/// A value type: text in, text that may be shown out. The stop string itself is not part of the output.
public struct StopMatcher: Sendable {
    /// What a piece of text led to.
    public struct Step: Sendable, Equatable {
        /// Text that can be shown now.
        public let text: String
        /// True when a stop string was met; nothing more is to come.
        public let stopped: Bool
    }

    private let stops: [[UInt8]]
    private var held: [UInt8] = []

    /// A matcher for any of `stops`; empty strings among them are ignored.
    public init(stops: [String]) {
        self.stops = stops.map { Array($0.utf8) }.filter { !$0.isEmpty }
    }

    /// Takes the next piece of text.
    public mutating func append(_ text: String) -> Step {
        guard !stops.isEmpty else { return Step(text: text, stopped: false) }
        held.append(contentsOf: text.utf8)
        if let start = earliestStop() {
            let shown = String(decoding: held[..<start], as: UTF8.self)
            held.removeAll()
            return Step(text: shown, stopped: true)
        }
        let keep = longestOpenPrefix()
        let shown = String(decoding: held.dropLast(keep), as: UTF8.self)
        held.removeFirst(held.count - keep)
        return Step(text: shown, stopped: false)
    }

    /// The text still held back when the stream ends otherwise.
    public mutating func flush() -> String {
        defer { held.removeAll() }
        return String(decoding: held, as: UTF8.self)
    }

    private func earliestStop() -> Int? {
        for start in held.indices where stops.contains(where: { held[start...].starts(with: $0) }) { return start }
        return nil
    }

    /// Bytes at the end of `held` that could still grow into a stop string.
    private func longestOpenPrefix() -> Int {
        let longest = min(held.count, (stops.map(\.count).max() ?? 1) - 1)
        for count in stride(from: longest, to: 0, by: -1) {
            let tail = held.suffix(count)
            if stops.contains(where: { $0.count > count && $0.prefix(count).elementsEqual(tail) }) { return count }
        }
        return 0
    }
}
