import Serving

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
    ///
    /// - Throws: `WireError` that names the field.
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
        var writer = FieldWriter()
        writer.put(1, hidden)
        writer.put(3, elements: rows) { $0.encode(into: &$1) }
        return writer.bytes
    }

    /// Parses metadata.
    ///
    /// - Throws: `WireError` that names the field.
    public init(decoding bytes: [UInt8]) throws(WireError) {
        let reader = try FieldReader(bytes, known: 1...3)
        hidden = try reader.integer(1, "hidden")
        rows = try reader.elements(3, "rows", limit: Self.maximumRows, byteLimit: bytes.count) {
            (row) throws(WireError) in
            try SampleRow(decoding: FieldReader(row, known: 1...5, Sampling.tags))
        }
        guard !rows.isEmpty else { throw WireError("rows are missing: a call has from 1 to \(Self.maximumRows)") }
    }
}

/// What a service is able to do, and what it has done (method status).
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

    /// Name and value, for metrics: nothing is decided by them.
    public var counters: [String: Int64]
    /// What the service needs and cannot call; empty when it can do its work.
    public var missing: [Missing]
    /// What an attention instance holds; nil from other services.
    public var capacity: Capacity?
    /// Rows that one call to experts or a sampler may have; nil from other services.
    public var maximumRows: Int?

    /// A reply.
    public init(
        counters: [String: Int64], missing: [Missing] = [], capacity: Capacity? = nil, maximumRows: Int? = nil
    ) {
        self.counters = counters
        self.missing = missing
        self.capacity = capacity
        self.maximumRows = maximumRows
    }

    /// Metadata of the response frame.
    public func encoded() -> [UInt8] {
        var writer = FieldWriter()
        let names = counters.keys.sorted()
        writer.put(1, strings: names)
        writer.put(2, array: names.map { counters[$0] ?? 0 })
        if !missing.isEmpty {
            let texts = missing.prefix(Self.missingServices).flatMap { [$0.service, $0.reason] }
            writer.put(3, strings: texts.map { $0.cut(toBytes: Self.missingBytes) })
        }
        if let capacity { writer.put(4, array: capacity.words) }
        if let maximumRows { writer.put(5, UInt32(clamping: maximumRows)) }
        return writer.bytes
    }

    /// Parses metadata.
    ///
    /// - Throws: `WireError` that names the field.
    public init(decoding bytes: [UInt8]) throws(WireError) {
        let reader = try FieldReader(bytes, known: 1...5)
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
        capacity = try Capacity(try reader.array(4, "capacity", limit: 5))
        maximumRows = try reader.slice(5).map { (_) throws(WireError) in
            try reader.count(5, "maximum rows", in: 0...Int(UInt32.max))
        }
    }
}
