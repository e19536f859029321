/// One piece of transferred state: what one frame carries. Layers are counted among those of their kind.
public enum TransferSegment: Sendable, Hashable {
    /// Latents of consecutive tokens of one MLA layer, by absolute position.
    case latents(layer: Int, tokens: Range<Int>)
    /// State of one linear layer after the last chunk.
    case recurrent(layer: Int)

    var name: String {
        switch self {
        case .latents(let layer, _): "MLA layer \(layer)"
        case .recurrent(let layer): "linear layer \(layer)"
        }
    }
}

/// Which segments of a transfer have passed: every token of every MLA layer and every linear layer's state exactly once,
/// in any order. The receiver keeps one to know what it may write and when it has everything, the sender one to know
/// when everything was copied out.
public struct SegmentLedger: Sendable {
    private struct Line: Sendable {
        let elementBytes: Int
        var passed: TokenSet
    }

    /// What the transfer consists of.
    public let manifest: TransferManifest
    /// Bytes that have passed.
    public private(set) var byteCount = 0
    /// Segments that have passed.
    public private(set) var segmentCount = 0
    private var latents: [Line]
    private var states: [Line]
    private var missing: Int

    /// A ledger in which everything is outstanding.
    public init(manifest: TransferManifest) {
        self.manifest = manifest
        let empty = TokenSet(count: manifest.positions.count)
        latents = manifest.layers.filter { $0.kind == .latent }.map { Line(elementBytes: $0.byteCount, passed: empty) }
        states = manifest.layers.filter { $0.kind == .recurrent }.map {
            Line(elementBytes: $0.byteCount, passed: TokenSet(count: 1))
        }
        missing = latents.count * manifest.positions.count + states.count
    }

    /// True when every segment has passed.
    public var isComplete: Bool { missing == 0 }

    /// Bytes a segment must have, or why there is no such segment.
    public func expectedBytes(_ segment: TransferSegment) throws(TransferRefusal) -> Int {
        let (line, units) = try locate(segment)
        return units.count * line.elementBytes
    }

    /// Enters a segment of `byteCount` bytes. Throws, and changes nothing, when it is unknown, has the wrong size or has
    /// passed before: then nothing of it may be written.
    public mutating func enter(_ segment: TransferSegment, byteCount bytes: Int) throws(TransferRefusal) {
        let (line, units) = try locate(segment)
        guard bytes == units.count * line.elementBytes else {
            throw TransferRefusal("\(segment.name): \(bytes) bytes for a segment of \(units.count * line.elementBytes)")
        }
        if let double = line.passed.first(in: units) {
            guard case .latents = segment else { throw TransferRefusal("\(segment.name): the state came twice") }
            throw TransferRefusal("\(segment.name): token \(manifest.positions.lowerBound + double) came twice")
        }
        switch segment {
        case .latents(let layer, _): latents[layer].passed.insert(units)
        case .recurrent(let layer): states[layer].passed.insert(units)
        }
        missing -= units.count
        byteCount += bytes
        segmentCount += 1
    }

    /// What is outstanding, for the record of a transfer that ended early: "MLA layer 1: 64 tokens, linear layer 0, …".
    public var outstanding: String {
        let tokens = latents.enumerated().filter { $0.element.passed.missing > 0 }
            .map { "MLA layer \($0.offset): \($0.element.passed.missing) tokens" }
        let rest = states.enumerated().filter { $0.element.passed.missing > 0 }.map { "linear layer \($0.offset)" }
        let names = tokens + rest
        return names.prefix(4).joined(separator: ", ") + (names.count > 4 ? " and \(names.count - 4) more layers" : "")
    }

    private func locate(_ segment: TransferSegment) throws(TransferRefusal) -> (Line, Range<Int>) {
        switch segment {
        case .recurrent(let layer):
            guard states.indices.contains(layer) else {
                throw TransferRefusal("\(segment.name) of \(states.count)")
            }
            return (states[layer], 0..<1)
        case .latents(let layer, let tokens):
            guard latents.indices.contains(layer) else {
                throw TransferRefusal("\(segment.name) of \(latents.count)")
            }
            let all = manifest.positions
            guard !tokens.isEmpty, tokens.lowerBound >= all.lowerBound, tokens.upperBound <= all.upperBound else {
                throw TransferRefusal("\(segment.name): tokens \(tokens) of \(all)")
            }
            return (latents[layer], (tokens.lowerBound - all.lowerBound)..<(tokens.upperBound - all.lowerBound))
        }
    }
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
        for word in (range.lowerBound / 64)...((range.upperBound - 1) / 64) { words[word] |= mask(word, range) }
        missing -= range.count
    }

    private func mask(_ word: Int, _ range: Range<Int>) -> UInt64 {
        let low = max(0, range.lowerBound - word * 64)
        let high = min(64, range.upperBound - word * 64)
        return (UInt64.max >> UInt64(64 - (high - low))) << UInt64(low)
    }
}
