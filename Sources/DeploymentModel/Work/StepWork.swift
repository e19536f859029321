/// Rows of one request in a step: `rows` new tokens after `context` tokens whose state exists already.
public struct RowGroup: Sendable, Hashable {
    /// New tokens.
    public var rows: Int
    /// Tokens before them.
    public var context: Int
    /// True for rows of a prompt, false for generated ones.
    public var isPrefill: Bool
    /// True when the last row is sampled.
    public var samples: Bool

    /// Most rows, and the longest context: sums over them stay within an `Int`.
    private static let limit = 1 << 22

    /// A group; numbers are brought between zero and four million.
    public init(rows: Int, context: Int, isPrefill: Bool, samples: Bool) {
        self.rows = min(max(0, rows), Self.limit)
        self.context = min(max(0, context), Self.limit)
        self.isPrefill = isPrefill
        self.samples = samples
    }

    /// A row that continues a request of `context` tokens and is sampled.
    public static func decode(context: Int) -> RowGroup {
        RowGroup(rows: 1, context: context, isPrefill: false, samples: true)
    }

    /// A piece of a prompt; `samples` when it is the last one.
    public static func prefill(rows: Int, context: Int = 0, samples: Bool = false) -> RowGroup {
        RowGroup(rows: rows, context: context, isPrefill: true, samples: samples)
    }
}

/// What all data-parallel attention ranks of a deployment compute in one step.
///
/// The ranks go in lockstep: every MoE layer is an exchange between all devices, so each layer takes as long as its
/// slowest rank. Ranks that are missing or empty compute padding.
public struct StepWork: Sendable, Equatable {
    /// The groups of every rank.
    public var ranks: [[RowGroup]]

    /// A step with these groups.
    public init(ranks: [[RowGroup]]) { self.ranks = ranks }

    /// The same groups on each of `ranks` ranks.
    public init(ranks: Int, each groups: [RowGroup]) {
        self.ranks = Array(repeating: groups, count: max(0, ranks))
    }

    /// New tokens over all ranks.
    public var rows: Int { ranks.reduce(0) { $0 + $1.reduce(0) { $0 + $1.rows } } }
    /// True when nothing is computed.
    public var isEmpty: Bool { rows == 0 }
}
