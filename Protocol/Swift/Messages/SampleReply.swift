import Serving

/// What one row of a sample call came to.
public enum SampleOutcome: Sendable, Equatable {
    /// The token that was chosen.
    case token(Token)
    /// No token can be chosen for the row, and why; the other rows of the call are none the worse for it.
    case refused(Failure)
}

/// What the rows of a sample call came to.
public struct SampleReply: Sendable, Equatable {
    /// One per row.
    public var outcomes: [SampleOutcome]

    /// A reply.
    public init(outcomes: [SampleOutcome]) { self.outcomes = outcomes }

    /// Must be understood, and is there only when a row was refused: the row and the code of each, by row.
    private static let refusedTag: UInt16 = 0x8000 | 4
    /// Bytes of the sentence of a refused row.
    private static let sentenceBytes = 256

    /// Metadata of the response frame.
    public func encoded() -> [UInt8] {
        var tokens: [Token] = []
        var refused: [UInt32] = []
        var sentences: [String] = []
        for (row, outcome) in outcomes.enumerated() {
            switch outcome {
            case .token(let token): tokens.append(token)
            case .refused(let failure):
                refused += [UInt32(row), UInt32(failure.code.rawValue)]
                sentences.append(failure.message)
            }
        }
        var writer = FieldWriter()
        writer.put(1, pairs: tokens)
        writer.put(2, array: tokens.lazy.map { UInt32($0.top.count) })
        writer.put(3, pairs: tokens.flatMap(\.top))
        if !refused.isEmpty {
            writer.put(Self.refusedTag, array: refused)
            writer.put(5, strings: sentences)
        }
        return writer.bytes
    }

    /// Parses metadata.
    ///
    /// - Throws: `WireError` that names the field.
    public init(decoding bytes: [UInt8]) throws(WireError) {
        let reader = try FieldReader(bytes, known: 1...5)
        var tokens = try Self.tokens(reader)[...]
        var refused = try Self.refused(reader)[...]
        let count = tokens.count + refused.count
        guard count <= SampleRequest.maximumRows else {
            throw WireError("the reply has \(count) rows, the limit is \(SampleRequest.maximumRows)")
        }
        outcomes = []
        outcomes.reserveCapacity(count)
        for row in 0..<count {
            if refused.first?.row == row, let (_, failure) = refused.popFirst() {
                outcomes.append(.refused(failure))
            } else if let token = tokens.popFirst() {
                outcomes.append(.token(token))
            } else {
                throw WireError("refused rows do not lie among the rows in their order")
            }
        }
    }

    private static func tokens(_ reader: FieldReader) throws(WireError) -> [Token] {
        var tokens = try reader.pairs(1, "tokens", limit: SampleRequest.maximumRows) { Token(id: $0, logprob: $1) }
        let counts: [UInt32] = try reader.array(2, "top counts", limit: SampleRequest.maximumRows)
        let top = try reader.alternatives(3, limit: SampleRequest.maximumRows * MessageLimits.topLogprobs)
        guard counts.count == tokens.count, counts.reduce(0, { $0 + Int($1) }) == top.count else {
            throw WireError("top counts do not add up to the top logprobs")
        }
        var cursor = 0
        for (index, count) in counts.enumerated() {
            tokens[index].top = Array(top[cursor..<cursor + Int(count)])
            cursor += Int(count)
        }
        return tokens
    }

    /// An unknown code counts as internal, as it does in a failure of its own.
    private static func refused(_ reader: FieldReader) throws(WireError) -> [(row: Int, failure: Failure)] {
        let words: [UInt32] = try reader.array(4, "refused rows", limit: 2 * SampleRequest.maximumRows)
        let sentences = try reader.strings(
            5, "refusals", limit: SampleRequest.maximumRows, byteLimit: sentenceBytes)
        guard words.count == 2 * sentences.count else {
            throw WireError("\(sentences.count) refusals go with \(words.count) words of refused rows")
        }
        return sentences.enumerated().map { index, sentence in
            let code = UInt16(exactly: words[2 * index + 1]).flatMap(ErrorCode.init) ?? .internal
            return (Int(words[2 * index]), Failure(code: code, message: sentence))
        }
    }
}
