/// What one attention rank computes in a step, summed over its requests: all that the costs depend on.
struct RankWork: Sendable, Equatable {
    /// Row counts are padded as the published engine does, so that few programs have to be compiled: to a power of two,
    /// prompts to at least a chunk of 64.
    static let chunk = 64

    var prefillRows = 0
    var decodeRows = 0
    var samples = 0
    /// Chunks of 64 rows of all prompts.
    var chunks = 0
    /// Requests with prompt rows: their states are read and written once.
    var prompts = 0
    /// Pairs of a prompt's row and a key it attends to.
    var prefillPairs = 0
    /// Keys that generated rows read.
    var decodeKeys = 0

    init(_ groups: [RowGroup]) {
        for group in groups where group.rows > 0 {
            if group.samples { samples += 1 }
            if group.isPrefill {
                prefillRows += group.rows
                prompts += 1
                chunks += (group.rows + Self.chunk - 1) / Self.chunk
                prefillPairs += group.rows * group.context + group.rows * (group.rows + 1) / 2
            } else {
                decodeRows += group.rows
                decodeKeys += group.rows * group.context + group.rows * (group.rows + 1) / 2
            }
        }
    }

    /// Rows the rank's programs are compiled for.
    var paddedRows: Int {
        let rows = prefillRows + decodeRows
        return rows == 0 ? 0 : Self.padded(rows, atLeast: prefillRows > 0 ? Self.chunk : 1)
    }

    static func padded(_ rows: Int, atLeast least: Int = 1) -> Int {
        rows <= least ? least : 1 << (Int.bitWidth - (rows - 1).leadingZeroBitCount)
    }
}
