/// One piece of transferred state: what one frame carries.
public struct StateSegment: Sendable, Hashable {
    /// Layer of the model.
    public let layer: Int
    /// Pages of an MLA layer, counted from the sequence's first; nil for a linear layer's state.
    public let pages: Range<Int>?

    /// Latents of whole pages; only the last page of the prompt may be partly filled.
    public static func latents(layer: Int, pages: Range<Int>) -> StateSegment {
        StateSegment(layer: layer, pages: pages)
    }

    /// A recurrent state after the last chunk.
    public static func recurrent(layer: Int) -> StateSegment { StateSegment(layer: layer, pages: nil) }
}

/// Which segments of a transfer have passed: each exactly once, in any order. The receiver keeps one to know what it
/// may write and when it has everything, the sender one to know when everything was copied out.
public struct SegmentLedger: Sendable {
    private struct Line: Sendable {
        let layer: TransferLayer
        var passed: [Bool]
    }

    /// What the transfer consists of.
    public let manifest: TransferManifest
    /// Bytes that have passed.
    public private(set) var byteCount = 0
    /// Segments that have passed.
    public private(set) var segmentCount = 0
    private var lines: [Int: Line]
    private var missing: Int

    /// A ledger in which everything is outstanding.
    public init(manifest: TransferManifest) {
        self.manifest = manifest
        lines = [:]
        missing = 0
        for layer in manifest.layers {
            let units = layer.kind == .latent ? manifest.pages.count : 1
            lines[layer.index] = Line(layer: layer, passed: Array(repeating: false, count: units))
            missing += units
        }
    }

    /// True when every segment has passed.
    public var isComplete: Bool { missing == 0 }

    /// Bytes a segment must have, or why there is no such segment.
    public func expectedBytes(_ segment: StateSegment) throws(TransferRefusal) -> Int {
        let (line, units) = try locate(segment)
        guard line.layer.kind == .latent, let pages = segment.pages else { return line.layer.byteCount }
        let first = pages.lowerBound * manifest.pageTokens
        let end = min(pages.upperBound * manifest.pageTokens, manifest.positions.upperBound)
        return units.isEmpty ? 0 : (end - first) * line.layer.byteCount
    }

    /// Enters a segment of `byteCount` bytes. Throws, and changes nothing, when it is unknown, has the wrong size or has
    /// passed before: then nothing of it may be written.
    public mutating func enter(_ segment: StateSegment, byteCount bytes: Int) throws(TransferRefusal) {
        let expected = try expectedBytes(segment)
        guard bytes == expected else {
            throw TransferRefusal("layer \(segment.layer): \(bytes) bytes for a segment of \(expected)")
        }
        let (line, units) = try locate(segment)
        if let double = units.first(where: { line.passed[$0] }) {
            let place = segment.pages == nil ? "" : " page \(manifest.pages.lowerBound + double)"
            throw TransferRefusal("layer \(segment.layer)\(place) came twice")
        }
        for unit in units { lines[segment.layer]?.passed[unit] = true }
        missing -= units.count
        byteCount += bytes
        segmentCount += 1
    }

    /// What is outstanding, for the record of a transfer that ended early: "layer 7: 2 pages, layer 0: state, …".
    public var outstanding: String {
        let names = manifest.layers.compactMap { layer -> String? in
            let left = lines[layer.index]?.passed.count { !$0 } ?? 0
            guard left > 0 else { return nil }
            return "layer \(layer.index): \(layer.kind == .latent ? "\(left) pages" : "state")"
        }
        return names.prefix(4).joined(separator: ", ") + (names.count > 4 ? " and \(names.count - 4) more layers" : "")
    }

    private func locate(_ segment: StateSegment) throws(TransferRefusal) -> (Line, Range<Int>) {
        guard let line = lines[segment.layer] else {
            throw TransferRefusal("layer \(segment.layer) has no state in this transfer")
        }
        guard let pages = segment.pages else {
            guard line.layer.kind == .recurrent else {
                throw TransferRefusal("layer \(segment.layer) has latents, not a recurrent state")
            }
            return (line, 0..<1)
        }
        guard line.layer.kind == .latent else {
            throw TransferRefusal("layer \(segment.layer) has a recurrent state, not latents")
        }
        let all = manifest.pages
        guard !pages.isEmpty, pages.lowerBound >= all.lowerBound, pages.upperBound <= all.upperBound else {
            throw TransferRefusal("layer \(segment.layer): pages \(pages) of \(all)")
        }
        return (line, (pages.lowerBound - all.lowerBound)..<(pages.upperBound - all.lowerBound))
    }
}
