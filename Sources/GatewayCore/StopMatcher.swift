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
    private var unsearched: Int
    private var held: [UInt8] = []

    /// A matcher for any of `stops`; empty strings among them are ignored, and so is what the first `minimumTokens` pieces
    /// hold.
    public init(stops: [String], minimumTokens: Int = 0) {
        self.stops = stops.map { Array($0.utf8) }.filter { !$0.isEmpty }
        unsearched = minimumTokens
    }

    /// Takes the next piece of text, that of one token.
    public mutating func append(_ text: String) -> Step {
        guard !stops.isEmpty else { return Step(text: text, stopped: false) }
        guard unsearched == 0 else {
            unsearched -= 1
            return Step(text: text, stopped: false)
        }
        held.append(contentsOf: text.utf8)
        if let start = firstStop() {
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

    /// Where the stop string begins that ends first, the longest of those that end together; so the outcome does not depend
    /// on how the text was cut.
    private func firstStop() -> Int? {
        var first: (end: Int, start: Int)?
        for stop in stops where stop.count <= held.count {
            let starts = 0...held.count - stop.count
            guard let start = starts.first(where: { held[$0...].starts(with: stop) }) else { continue }
            let found = (end: start + stop.count, start: start)
            if first.map({ found < $0 }) ?? true { first = found }
        }
        return first?.start
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
