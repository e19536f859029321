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

    /// A line as it is written; numbers are checked, and the field named, after decoding.
    private struct Written: Decodable {
        let timestamp: Double
        let input_length: Double
        let output_length: Double
        let hash_ids: [Double]?
    }

    private struct Line {
        let timestamp: Double
        let inputLength: Int
        let outputLength: Int
        let blocks: [UInt64]
    }

    private let lines: [Line]
    private let lengthScale: Double
    private let bound: UInt32
    private let seed: UInt64
    /// When each request is due, microseconds.
    public let dueTimes: [UInt64]?

    /// Reads the first `limit` lines of `text`; a line that cannot be used is named by its number. Time runs `slowdown`
    /// times slower than recorded, and lengths (and blocks) are multiplied by `lengthScale`.
    public init(
        parsing text: Data, limit: Int, slowdown: Double = 1, lengthScale: Double = 1, idsBelow bound: UInt32,
        seed: UInt64
    ) throws(LoadError) {
        var lines: [Line] = []
        for (index, bytes) in text.split(separator: 10, omittingEmptySubsequences: false).enumerated() {
            guard lines.count < min(limit, Self.lineLimit) else { break }
            guard bytes.contains(where: { !Self.blanks.contains($0) }) else { continue }
            let line = try Self.parse(Data(bytes), number: index + 1)
            if let last = lines.last, line.timestamp < last.timestamp {
                throw LoadError(
                    "line \(index + 1): timestamp \(line.timestamp) is before the line above's \(last.timestamp)")
            }
            lines.append(line)
        }
        guard let first = lines.first else { throw LoadError("the trace has no lines") }
        self.lines = lines
        self.lengthScale = lengthScale
        self.bound = bound
        self.seed = seed
        dueTimes = lines.map { UInt64(($0.timestamp - first.timestamp) * 1000 * slowdown) }
    }

    private static let blanks: [UInt8] = [32, 9, 13]

    private static func parse(_ bytes: Data, number: Int) throws(LoadError) -> Line {
        let written: Written
        do { written = try JSONDecoder().decode(Written.self, from: bytes) } catch {
            throw LoadError("line \(number): \(JSONComplaint.sentence(error))")
        }
        guard (0...1e12).contains(written.timestamp) else {
            throw LoadError("line \(number): timestamp must be from 0 to 1e12 ms, not \(written.timestamp)")
        }
        let input = try length("input_length", written.input_length, number)
        let output = try length("output_length", written.output_length, number)
        let ids = written.hash_ids ?? []
        guard ids.count <= (input + blockTokens - 1) / blockTokens else {
            throw LoadError(
                "line \(number): hash_ids has \(ids.count) blocks of \(blockTokens) tokens, input_length is only \(input)"
            )
        }
        let blocks = ids.compactMap { UInt64(exactly: $0) }
        guard blocks.count == ids.count else {
            throw LoadError("line \(number): hash_ids must be whole numbers from 0")
        }
        return Line(timestamp: written.timestamp, inputLength: input, outputLength: output, blocks: blocks)
    }

    private static func length(_ name: String, _ value: Double, _ number: Int) throws(LoadError) -> Int {
        guard let tokens = Int(exactly: value), (1...tokenLimit).contains(tokens) else {
            throw LoadError("line \(number): \(name) must be a whole number from 1 to \(tokenLimit), not \(value)")
        }
        return tokens
    }

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

/// Decoding errors as half sentences that name the field.
enum JSONComplaint {
    static func sentence(_ error: any Error) -> String {
        switch error as? DecodingError {
        case .keyNotFound(let key, _): "\(key.stringValue) is missing"
        case .typeMismatch(_, let context), .valueNotFound(_, let context): "\(path(context)) has the wrong type"
        case .dataCorrupted(let context) where !context.codingPath.isEmpty: "\(path(context)) is out of range"
        default: "not a JSON value of the expected form"
        }
    }

    private static func path(_ context: DecodingError.Context) -> String {
        let names = context.codingPath.map { $0.intValue.map { "[\($0)]" } ?? $0.stringValue }
        return names.isEmpty ? "the value" : names.joined(separator: " ")
    }
}
