import Serving

/// Which segments of a transfer have passed: every token of every MLA layer and every linear layer's state exactly once,
/// in any order. The receiver keeps one to know what it may write and when it has everything, the sender one to know
/// that it sent all of it.
public struct SegmentLedger: Sendable {
    private struct Line: Sendable {
        let kind: TransferLayer.Kind
        let elementBytes: Int
        var passed: TokenSet
    }

    /// What the transfer consists of.
    public let manifest: TransferManifest
    /// Bytes that have passed.
    public private(set) var byteCount = 0
    /// Segments that have passed.
    public private(set) var segmentCount = 0
    /// By layer of the model.
    private var lines: [Int: Line]
    private var missing: Int

    /// A ledger in which everything is outstanding.
    public init(manifest: TransferManifest) {
        self.manifest = manifest
        lines = [:]
        missing = 0
        for layer in manifest.layers {
            let units = layer.kind == .latent ? manifest.positions.count : 1
            lines[layer.index] = Line(
                kind: layer.kind, elementBytes: layer.byteCount, passed: TokenSet(count: units))
            missing += units
        }
    }

    /// True when every segment has passed.
    public var isComplete: Bool { missing == 0 }

    /// Enters a segment of `byteCount` bytes.
    ///
    /// - Throws: when it is unknown, has the wrong size or has passed before. Then nothing has changed, and nothing of it
    ///   may be written.
    public mutating func enter(_ segment: TransferSegment, byteCount bytes: Int) throws(TransferRefusal) {
        let (line, units) = try locate(segment)
        guard bytes == units.count * line.elementBytes else {
            throw TransferRefusal("\(segment.name): \(bytes) bytes for a segment of \(units.count * line.elementBytes)")
        }
        if let double = line.passed.first(in: units) {
            guard case .latents = segment else { throw TransferRefusal("\(segment.name): the state came twice") }
            throw TransferRefusal("\(segment.name): token \(manifest.positions.lowerBound + double) came twice")
        }
        lines[segment.layer]?.passed.insert(units)
        missing -= units.count
        assert(missing >= 0, "more has passed than the transfer consists of")
        byteCount += bytes
        segmentCount += 1
    }

    /// What is outstanding, for the record of a transfer that ended early: "MLA layer 7: 64 tokens, linear layer 0, …".
    public var outstanding: String {
        let open = lines.filter { $0.value.passed.missing > 0 }.sorted { $0.key < $1.key }
        let names =
            open.filter { $0.value.kind == .latent }.map { "MLA layer \($0.key): \($0.value.passed.missing) tokens" }
            + open.filter { $0.value.kind == .recurrent }.map { "linear layer \($0.key)" }
        return names.prefix(4).joined(separator: ", ") + (names.count > 4 ? " and \(names.count - 4) more layers" : "")
    }

    private func locate(_ segment: TransferSegment) throws(TransferRefusal) -> (Line, Range<Int>) {
        guard let line = lines[segment.layer], line.kind == segment.kind else {
            throw TransferRefusal("\(segment.name) is not one of this transfer")
        }
        guard case .latents(_, let tokens) = segment else { return (line, 0..<1) }
        let all = manifest.positions
        guard !tokens.isEmpty, tokens.lowerBound >= all.lowerBound, tokens.upperBound <= all.upperBound else {
            throw TransferRefusal("\(segment.name): tokens \(tokens) of \(all)")
        }
        return (line, (tokens.lowerBound - all.lowerBound)..<(tokens.upperBound - all.lowerBound))
    }
}

extension TransferSegment {
    var kind: TransferLayer.Kind {
        switch self {
        case .latents: .latent
        case .state: .recurrent
        }
    }

    var name: String { "\(kind == .latent ? "MLA" : "linear") layer \(layer)" }
}

/// A set of numbers below `count`, a bit each.
private struct TokenSet: Sendable {
    private(set) var missing: Int
    private var words: [UInt64]

    init(count: Int) {
        missing = count
        words = Array(repeating: 0, count: (count + 63) / 64)
    }

    /// The lowest member in a range.
    func first(in range: Range<Int>) -> Int? {
        for word in (range.lowerBound / 64)...((range.upperBound - 1) / 64) {
            let hits = words[word] & mask(word, range)
            if hits != 0 { return word * 64 + hits.trailingZeroBitCount }
        }
        return nil
    }

    /// Adds a range of which no number is in yet.
    mutating func insert(_ range: Range<Int>) {
        assert(first(in: range) == nil, "a token passes once")
        for word in (range.lowerBound / 64)...((range.upperBound - 1) / 64) { words[word] |= mask(word, range) }
        missing -= range.count
    }

    private func mask(_ word: Int, _ range: Range<Int>) -> UInt64 {
        let low = max(0, range.lowerBound - word * 64)
        let high = min(64, range.upperBound - word * 64)
        return (UInt64.max >> UInt64(64 - (high - low))) << UInt64(low)
    }
}
