import Foundation

/// One line of a trace, checked.
struct TraceLine: Sendable {
    /// As it is written, in whatever unit.
    let timestamp: Double
    let inputLength: Int
    let outputLength: Int
    let blocks: [UInt64]

    /// A line as it is written; numbers are checked, and the field named, after decoding.
    private struct Written: Decodable {
        let timestamp: Double
        let input_length: Double
        let output_length: Double
        let hash_ids: [BlockID]?
    }

    /// The number of a block: any whole number of 64 bits, with a sign or without; or a text.
    private struct BlockID: Decodable {
        let value: UInt64?

        init(from decoder: any Decoder) throws {
            let container = try decoder.singleValueContainer()
            if let number = try? container.decode(UInt64.self) {
                value = number
            } else if let number = try? container.decode(Int64.self) {
                value = UInt64(bitPattern: number)
            } else if let number = try? container.decode(Double.self) {
                value = UInt64(exactly: number)
            } else {
                value = Self.hash(try container.decode(String.self))
            }
        }

        /// FNV-1a of Fowler, Noll and Vo.
        private static func hash(_ text: String) -> UInt64 {
            text.utf8.reduce(0xCBF2_9CE4_8422_2325) { ($0 ^ UInt64($1)) &* 0x0100_0000_01B3 }
        }
    }

    init(_ bytes: Data) throws(OddRow) {
        let written: Written
        do { written = try JSONDecoder().decode(Written.self, from: bytes) } catch {
            throw OddRow("has a fault: \(JSONComplaint.sentence(error))")
        }
        guard (0...1e19).contains(written.timestamp) else { throw OddRow("has a timestamp that is no time") }
        let input = try Self.length("input_length", written.input_length)
        let output = try Self.length("output_length", written.output_length)
        let ids = written.hash_ids ?? []
        guard ids.count <= (input + TraceWorkload.blockTokens - 1) / TraceWorkload.blockTokens else {
            throw OddRow("has more hash_ids than input_length has blocks of \(TraceWorkload.blockTokens) tokens")
        }
        let blocks = ids.compactMap(\.value)
        guard blocks.count == ids.count else { throw OddRow("has hash_ids that are no whole numbers of 64 bits") }
        (timestamp, inputLength, outputLength, self.blocks) = (written.timestamp, input, output, blocks)
    }

    private static func length(_ name: String, _ value: Double) throws(OddRow) -> Int {
        guard let tokens = Int(exactly: value), (1...TraceWorkload.tokenLimit).contains(tokens) else {
            throw OddRow("has an \(name) that is no whole number from 1 to \(TraceWorkload.tokenLimit)")
        }
        return tokens
    }
}

/// What a trace's timestamps count. Mooncake's are milliseconds from its beginning; others are times since 1970, which
/// show by their size.
enum TraceUnit: Sendable {
    case milliseconds, seconds, microseconds, nanoseconds

    /// The unit of a trace with this timestamp, from 2001 to 5138 if it is one of since 1970.
    init(_ timestamp: Double) {
        switch timestamp {
        case 1e9..<1e11: self = .seconds
        case 1e15..<1e17: self = .microseconds
        case 1e17...: self = .nanoseconds
        default: self = .milliseconds
        }
    }

    var milliseconds: Double {
        switch self {
        case .seconds: 1000
        case .milliseconds: 1
        case .microseconds: 1e-3
        case .nanoseconds: 1e-6
        }
    }

    /// What is said of a unit that the file does not name.
    var notice: String? {
        switch self {
        case .milliseconds: nil
        case .seconds: "its timestamps are taken as seconds since 1970"
        case .microseconds: "its timestamps are taken as microseconds since 1970"
        case .nanoseconds: "its timestamps are taken as nanoseconds since 1970"
        }
    }
}

/// Decoding errors as half sentences that name the field.
enum JSONComplaint {
    static func sentence(_ error: any Error) -> String {
        switch error as? DecodingError {
        case .keyNotFound(let key, _): "\(key.stringValue) is missing"
        case .typeMismatch(_, let context), .valueNotFound(_, let context): "\(path(context)) has the wrong type"
        case .dataCorrupted(let context) where !context.codingPath.isEmpty: "\(path(context)) is out of range"
        default: "it is no JSON object of the expected form"
        }
    }

    private static func path(_ context: DecodingError.Context) -> String {
        let names = context.codingPath.filter { $0.intValue == nil }.map(\.stringValue)
        return names.isEmpty ? "the value" : names.joined(separator: " ")
    }
}
