import Foundation

/// `trace`: arrivals and lengths of recorded traffic in Mooncake's JSON lines, one object a line:
/// `{"timestamp": ms, "input_length": tokens, "output_length": tokens, "hash_ids": [block, …]}`. Equal block numbers
/// stand for equal content, 512 tokens each, so that shared prefixes stay shared.
public struct TraceWorkload: Workload {
    /// Lines, at most.
    public static let lineLimit = 1_000_000
    /// Tokens of a prompt or an answer, at most.
    public static let tokenLimit = 262_144
    /// Tokens that one entry of `hash_ids` stands for.
    public static let blockTokens = 512
    /// A line so far from the one in the middle is of another clock, milliseconds.
    private static let farMilliseconds = 8.64e9

    private let lines: [TraceLine]
    private let lengthScale: Double
    private let bound: UInt32
    private let seed: UInt64
    /// When each request is due, microseconds; the first at once.
    public let dueTimes: [UInt64]?
    /// Lines that were left out or sorted, and how timestamps were read.
    public let notices: [String]

    /// Reads the first `limit` usable lines of `text`, in the order of their timestamps. Lines that cannot be used are
    /// left out, and `notices` says how many and why. Time runs `slowdown`
    /// times slower than recorded, and lengths (and blocks) are multiplied by `lengthScale`.
    ///
    /// - Throws: when no line is left.
    public init(
        parsing text: Data, limit: Int, slowdown: Double = 1, lengthScale: Double = 1, idsBelow bound: UInt32,
        seed: UInt64
    ) throws(LoadError) {
        var read: [(number: Int, line: TraceLine)] = []
        var (odd, looked) = (OddRows(), 0)
        for (index, bytes) in text.split(separator: 10, omittingEmptySubsequences: false).enumerated() {
            guard read.count < min(limit, Self.lineLimit) else { break }
            guard bytes.contains(where: { !Self.blanks.contains($0) }) else { continue }
            looked += 1
            do throws(OddRow) { read.append((index + 1, try TraceLine(Data(bytes)))) } catch {
                odd.note(index + 1, error.description)
            }
        }
        let middle = read.map(\.line.timestamp).sorted().dropFirst(read.count / 2).first ?? 0
        let unit = TraceUnit(middle)
        read.removeAll { number, line in
            let isFar = abs(line.timestamp - middle) * unit.milliseconds > Self.farMilliseconds
            if isFar { odd.note(number, "has a timestamp more than 100 days from the others") }
            return isFar
        }
        let unsorted = zip(read, read.dropFirst()).count { $1.line.timestamp < $0.line.timestamp }
        let lines = read.map(\.line).sorted { $0.timestamp < $1.timestamp }
        let leftOut = odd.sentence(of: looked, "line")
        guard let first = lines.first else {
            throw LoadError("the trace has no lines" + (leftOut.map { " that can be used; \($0)" } ?? ""))
        }
        self.lines = lines
        self.lengthScale = lengthScale
        self.bound = bound
        self.seed = seed
        dueTimes = lines.map { UInt64(($0.timestamp - first.timestamp) * unit.milliseconds * 1000 * slowdown) }
        let sorted = unsorted > 0 ? "\(unsorted) lines were earlier than the line above and are sorted in" : nil
        let fewer =
            lines.count < limit ? "the trace has \(lines.count) requests, fewer than the \(limit) asked for" : nil
        notices = [leftOut, sorted, unit.notice, fewer].compactMap(\.self)
    }

    private static let blanks: [UInt8] = [32, 9, 13]

    /// Lines that were read.
    public var count: Int { lines.count }

    /// The request of line `index`.
    public func request(at index: Int) -> PlannedRequest {
        let line = lines[index]
        let inputTokens = scaled(line.inputLength)
        let block = scaled(Self.blockTokens)
        var tokens: [UInt32] = []
        tokens.reserveCapacity(inputTokens + block)
        for id in line.blocks {
            var generator = SeededGenerator(seed: seed &+ id, stream: SeedStream.block)
            tokens += RandomWorkload.tokens(min(block, inputTokens - tokens.count), below: bound, &generator)
        }
        var generator = SeededGenerator(seed: seed, stream: UInt64(index))
        tokens += RandomWorkload.tokens(inputTokens - tokens.count, below: bound, &generator)
        return PlannedRequest(
            prompt: .tokens(tokens), inputTokens: inputTokens, outputTokens: scaled(line.outputLength))
    }

    /// The lengths of line `index`.
    public func lengths(at index: Int) -> (input: Int, output: Int) {
        (scaled(lines[index].inputLength), scaled(lines[index].outputLength))
    }

    private func scaled(_ length: Int) -> Int { max(1, Int((Double(length) * lengthScale).rounded())) }
}
