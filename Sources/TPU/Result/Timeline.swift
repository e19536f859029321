/// The names a timeline's numbers stand for.
struct TimelineNames: Sendable {
    let buffers: [String]
    let semaphores: [String]
    let phases: [String]
    let topology: SliceTopology
}

/// What every engine of every device did when.
///
/// Neighbouring pieces of the same work on one track are joined, so that a thousand rows are one bar.
public struct Timeline: Sendable {
    enum Track: Hashable {
        case phase(Int, Int)
        case stall(Int, Int)
        case unit(Int, ExecutionUnit)
        case link(Int)
        /// Device, buffer, and the slot of a buffer that has few.
        case load(Int, Int, Int)
        case store(Int, Int)
        case arrival(Int, Int)
    }

    struct Span {
        let track: Int
        var start: Picoseconds
        var end: Picoseconds
    }

    private static let joinedGap: Picoseconds = 200_000
    let names: TimelineNames
    private(set) var tracks: [Track] = []
    private(set) var spans: [Span] = []
    private var indices: [Track: Int] = [:]
    private var last: [Int] = []

    init(names: TimelineNames) { self.names = names }

    mutating func add(_ track: Track, from start: Picoseconds, to end: Picoseconds) {
        guard end > start else { return }
        let index = number(of: track)
        let previous = last[index]
        if previous >= 0, start <= spans[previous].end + gap(track) {
            spans[previous].end = max(spans[previous].end, end)
            return
        }
        last[index] = spans.count
        spans.append(Span(track: index, start: start, end: end))
    }

    /// A copy that has arrived.
    mutating func add(_ copy: Copy, until end: Picoseconds) {
        let target = copy.target.buffer
        if copy.isRemote {
            add(.arrival(copy.targetDevice, target.index), from: copy.issued, to: end)
        } else if target.space == .highBandwidth {
            add(.store(copy.sourceDevice, target.index), from: copy.issued, to: end)
        } else {
            let slots = (target.rowCount + target.granuleRows - 1) / target.granuleRows
            let slot = slots <= 4 ? copy.target.firstRow / target.granuleRows : 0
            add(.load(copy.sourceDevice, target.index, slot), from: copy.issued, to: end)
        }
    }

    private func gap(_ track: Track) -> Picoseconds {
        switch track {
        case .phase, .stall, .unit: 0
        default: Self.joinedGap
        }
    }

    private mutating func number(of track: Track) -> Int {
        if let known = indices[track] { return known }
        indices[track] = tracks.count
        tracks.append(track)
        last.append(-1)
        return tracks.count - 1
    }
}
