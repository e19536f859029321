/// One MoE layer for some rows (method expertsForward). The body holds, each from a multiple of 64 bytes: rows
/// f32 [rowCount, hidden]; pairRow i32 [pairCount]; pairExpert i32 [pairCount]; pairWeight f32 [pairCount]; sharedRow
/// i32 [sharedCount].
public struct ExpertsRequest: Sendable, Equatable {
    /// Layer.
    public var layer: UInt32
    /// Rows in the body.
    public var rowCount: UInt32
    /// Width of a row.
    public var hidden: UInt32
    /// (row, expert) pairs in the body.
    public var pairCount: UInt32
    /// Rows that go through the shared expert.
    public var sharedCount: UInt32
    /// Pairs per row when the receiver combines them (pairs then lie row by row, and every row is shared); 0 when the
    /// caller combines.
    public var combinedTopK: UInt32

    /// A request.
    public init(
        layer: UInt32, rowCount: UInt32, hidden: UInt32, pairCount: UInt32, sharedCount: UInt32, combinedTopK: UInt32
    ) {
        self.layer = layer
        self.rowCount = rowCount
        self.hidden = hidden
        self.pairCount = pairCount
        self.sharedCount = sharedCount
        self.combinedTopK = combinedTopK
    }

    /// Metadata of the request frame.
    public func encoded() -> [UInt8] {
        var writer = FieldWriter()
        writer.put(1, array: [layer, rowCount, hidden, pairCount, sharedCount, combinedTopK])
        return writer.bytes
    }

    /// Parses metadata.
    public init(decoding bytes: [UInt8]) throws(WireError) {
        let reader = try FieldReader(bytes, known: 1...1)
        let words: [UInt32] = try reader.array(1, "experts call", limit: 6)
        guard words.count == 6 else { throw WireError("experts call has \(words.count) numbers, not 6") }
        self.init(
            layer: words[0], rowCount: words[1], hidden: words[2], pairCount: words[3], sharedCount: words[4],
            combinedTopK: words[5])
        guard rowCount <= 65536, hidden <= 65536, pairCount <= 65536 * 64, sharedCount <= rowCount else {
            throw WireError("experts call is larger than 65536 rows of 65536 with 64 pairs each")
        }
    }

    /// Byte offsets of the five tensors and, last, the length of the body.
    public var bodyOffsets: [Int] {
        var offsets = [0]
        for count in [Int(rowCount) * Int(hidden), Int(pairCount), Int(pairCount), Int(pairCount), Int(sharedCount)] {
            offsets.append(((offsets.last ?? 0) + 4 * count + 63) / 64 * 64)
        }
        return offsets
    }

    /// Floats in the reply: [rowCount, hidden] when combined, else [pairCount, hidden] then [sharedCount, hidden].
    public var replyFloats: Int {
        Int(hidden) * (combinedTopK > 0 ? Int(rowCount) : Int(pairCount) + Int(sharedCount))
    }
}

/// How one row of a sample call is sampled.
public struct SampleRow: Sendable, Equatable {
    /// Sampling.
    public var sampling: SamplingOptions
    /// Position of the token to be chosen; with the seed it determines the random number.
    public var position: UInt64
    /// Logprobs wanted besides the token's own.
    public var topLogprobs: UInt8
    /// Token ids of prompt and output, only when a penalty is on.
    public var history: [UInt32]
    /// How many of `history` are the prompt.
    public var promptCount: UInt32
    /// Tokens that must not be chosen.
    public var banned: [UInt32]

    /// A row.
    public init(
        sampling: SamplingOptions, position: UInt64, topLogprobs: UInt8, history: [UInt32] = [],
        promptCount: UInt32 = 0, banned: [UInt32] = []
    ) {
        self.banned = banned
        self.sampling = sampling
        self.position = position
        self.topLogprobs = topLogprobs
        self.history = history
        self.promptCount = promptCount
    }
}

/// Hidden rows to be sampled (method sample); the body is f32 [rows, hidden].
public struct SampleRequest: Sendable, Equatable {
    /// Width of a row.
    public var hidden: UInt32
    /// How each row is sampled.
    public var rows: [SampleRow]

    /// Rows one call may have.
    public static let maximumRows = 4096

    /// A request.
    public init(hidden: UInt32, rows: [SampleRow]) {
        self.hidden = hidden
        self.rows = rows
    }

    /// Metadata of the request frame.
    public func encoded() -> [UInt8] {
        var packed: [UInt8] = []
        for row in rows {
            let s = row.sampling
            for value in [
                s.temperature, s.topP, s.minP, s.repetitionPenalty, s.presencePenalty, s.frequencyPenalty,
            ] { packed.appendInteger(value.bitPattern) }
            packed.appendInteger(s.topK)
            packed.appendInteger(s.seed)
            packed.appendInteger(row.position)
            packed.appendInteger(UInt32(row.topLogprobs))
            packed.appendInteger(row.promptCount)
            packed.appendInteger(UInt32(row.history.count))
            for id in row.history { packed.appendInteger(id) }
        }
        var writer = FieldWriter()
        writer.put(1, hidden)
        writer.put(2, UInt32(rows.count))
        writer.put(3, packed)
        if rows.contains(where: { !$0.sampling.logitBias.isEmpty || !$0.banned.isEmpty }) {
            writer.put(Self.adjustmentsTag, array: rows.flatMap(Self.adjustments))
        }
        return writer.bytes
    }

    /// Parses metadata.
    public init(decoding bytes: [UInt8]) throws(WireError) {
        let reader = try FieldReader(bytes, known: 1...4)
        hidden = try reader.integer(1, "hidden")
        let count: UInt32 = try reader.integer(2, "row count")
        guard (1...Self.maximumRows).contains(Int(count)) else {
            throw WireError("row count must be from 1 to \(Self.maximumRows), not \(count)")
        }
        let words: [UInt32] = try reader.array(3, "rows", limit: 1 << 24)
        var cursor = 0
        var rows: [SampleRow] = []
        for _ in 0..<count {
            guard words.count - cursor >= 14 else { throw WireError("rows end inside a row") }
            let w = words[cursor..<cursor + 14].map { $0 }
            cursor += 14
            guard Int(w[13]) <= words.count - cursor, w[12] <= w[13], w[11] <= UInt32(MessageLimits.topLogprobs) else {
                throw WireError("a row's history, prompt count or logprobs exceed their limits")
            }
            var options = SamplingOptions()
            options.temperature = Float(bitPattern: w[0])
            options.topP = Float(bitPattern: w[1])
            options.minP = Float(bitPattern: w[2])
            options.repetitionPenalty = Float(bitPattern: w[3])
            options.presencePenalty = Float(bitPattern: w[4])
            options.frequencyPenalty = Float(bitPattern: w[5])
            options.topK = w[6]
            options.seed = UInt64(w[7]) | UInt64(w[8]) << 32
            guard w[0..<6].allSatisfy({ Float(bitPattern: $0).isFinite }), options.repetitionPenalty > 0 else {
                throw WireError("a row's sampling options are not finite")
            }
            rows.append(
                SampleRow(
                    sampling: options, position: UInt64(w[9]) | UInt64(w[10]) << 32, topLogprobs: UInt8(w[11]),
                    history: Array(words[cursor..<cursor + Int(w[13])]), promptCount: w[12]))
            cursor += Int(w[13])
        }
        self.rows = rows
        try decodeAdjustments(reader)
    }

    // MARK: Biases and bans

    /// Must be understood, and is there only when a row needs it.
    private static let adjustmentsTag: UInt16 = 0x8000 | 4

    /// Two counts, the pairs of the biases, the banned ids.
    private static func adjustments(_ row: SampleRow) -> [UInt32] {
        [UInt32(row.sampling.logitBias.count), UInt32(row.banned.count)]
            + row.sampling.logitBias.flatMap { [$0.id, $0.bias.bitPattern] } + row.banned
    }

    private mutating func decodeAdjustments(_ reader: FieldReader) throws(WireError) {
        guard reader.data(4) != nil else { return }
        let words: [UInt32] = try reader.array(4, "adjustments", limit: 1 << 24)
        var cursor = 0
        for index in rows.indices {
            guard words.count - cursor >= 2 else { throw WireError("adjustments end before row \(index)") }
            let (biased, banned) = (Int(words[cursor]), Int(words[cursor + 1]))
            cursor += 2
            guard biased <= MessageLimits.biasedTokens, banned <= 2 * MessageLimits.stopTokens,
                2 * biased + banned <= words.count - cursor
            else { throw WireError("adjustments of row \(index) exceed their limits") }
            rows[index].sampling.logitBias = try TokenBias.list(words[cursor..<cursor + 2 * biased], "logit_bias")
            cursor += 2 * biased
            rows[index].banned = Array(words[cursor..<cursor + banned])
            cursor += banned
        }
        guard cursor == words.count else { throw WireError("adjustments go on after the last row") }
    }
}

/// Counters of a service (method status).
public struct StatusReply: Sendable, Equatable {
    /// A service that is needed and cannot be called.
    public struct Missing: Sendable, Equatable {
        /// Which, such as "sampler".
        public var service: String
        /// Why not, one sentence.
        public var reason: String

        /// A service that cannot be called.
        public init(service: String, reason: String) {
            self.service = service
            self.reason = reason
        }
    }

    private static let missingServices = 64
    private static let missingBytes = 1024

    /// Name and value.
    public var counters: [String: Int64]
    /// What the service needs and cannot call; empty when it can do its work.
    public var missing: [Missing]

    /// A reply.
    public init(counters: [String: Int64], missing: [Missing] = []) {
        self.counters = counters
        self.missing = missing
    }

    /// Metadata of the response frame.
    public func encoded() -> [UInt8] {
        var writer = FieldWriter()
        let names = counters.keys.sorted()
        writer.put(1, strings: names)
        writer.put(2, array: names.map { counters[$0] ?? 0 })
        guard !missing.isEmpty else { return writer.bytes }
        let listed = missing.prefix(Self.missingServices)
        let texts = listed.flatMap { [$0.service, $0.reason] }
        writer.put(3, strings: texts.map { $0.cut(toBytes: Self.missingBytes) })
        return writer.bytes
    }

    /// Parses metadata.
    public init(decoding bytes: [UInt8]) throws(WireError) {
        let reader = try FieldReader(bytes, known: 1...3)
        let names = try reader.strings(1, "counter names", limit: 1024, byteLimit: 256)
        let values: [Int64] = try reader.array(2, "counter values", limit: 1024)
        guard names.count == values.count, Set(names).count == names.count else {
            throw WireError("counter names and values do not match")
        }
        counters = Dictionary(uniqueKeysWithValues: zip(names, values))
        let parts = try reader.strings(
            3, "missing services", limit: 2 * Self.missingServices, byteLimit: Self.missingBytes)
        guard parts.count.isMultiple(of: 2) else { throw WireError("missing services end after a name") }
        missing = stride(from: 0, to: parts.count, by: 2).map { Missing(service: parts[$0], reason: parts[$0 + 1]) }
    }
}
