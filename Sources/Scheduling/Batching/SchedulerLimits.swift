/// What one step may be made of.
public enum StepPolicy: String, Sendable, CaseIterable {
    /// Decode rows, and beside them as many prompt rows as running streams can bear.
    case mixed
    /// Prompts alone while there are any, the earliest first and `prefillChunk` rows in all; decode rows alone otherwise.
    case prefillFirst = "prefill-first"
}

/// What the steps of one lockstep group are made of.
enum StepKind: Sendable {
    case mixed, prefill, decode
}

extension StepPolicy {
    /// The next step's kind. A prompt on one rank keeps the decode rows of all ranks waiting: they share the step.
    func kind(hasPrompts: Bool) -> StepKind {
        switch self {
        case .mixed: .mixed
        case .prefillFirst: hasPrompts ? .prefill : .decode
        }
    }
}

/// Limits of one attention instance's scheduler. Every queue, wait and step has one.
public struct SchedulerLimits: Sendable, Equatable {
    /// Rows (tokens) computed in one step, decode and prefill together.
    public var rowsPerStep: Int
    /// Rows of one prompt computed in one step; a multiple of 64, so that pages are full where it is cut.
    public var prefillChunk: Int
    /// Requests that compute at once.
    public var running: Int
    /// Requests that wait for memory; one more is rejected.
    public var waiting: Int
    /// Rows of all prompts together in a step that also carries decode rows: what a long prompt may add to the gap
    /// between two tokens of a running stream. A multiple of 64, at least 64.
    public var prefillBesideDecode: Int
    /// Requests whose state is on its way in; apart from `running`, so that full decoding does not throttle prefill.
    public var receiving: Int
    /// Share of the tokens a request may still generate that admission sets memory aside for: 1 promises all of them,
    /// so that nothing is ever preempted; less admits more and preempts when it was too hopeful.
    public var expectedGrowth = 0.5
    /// Tokens that admission sets aside at most for what a request may still generate. Who may generate as much as the
    /// context has room for rarely does, and would keep others out. Doubles each time a request was preempted.
    public var expectedTokens = Int.max
    /// How often a request that does not fit may be passed over by smaller ones behind it.
    public var passesOver = 16
    /// How long a request may wait for memory, in microseconds.
    public var waitMicroseconds: UInt64 = 60_000_000
    /// How often one request is recomputed after failed steps before it is given up.
    public var recomputations = 8
    /// What one step may be made of.
    public var stepPolicy = StepPolicy.mixed
    /// Whether what was computed is kept for requests that begin with the same tokens, until its memory is needed.
    public var keepsPrefixes = false
    /// The state of a long prompt is kept each time it has so many tokens more, a multiple of 64.
    public var snapshotTokens = 4096
    /// Recurrent slots of the pool that are for what is kept, and not for requests.
    public var snapshots = 0
    /// An instance that had nothing to do begins its first step when nothing more has come for so long, in microseconds,
    /// so that requests which come together are computed together. Whoever drives the scheduler does the waiting.
    public var gatherMicroseconds: UInt64 = 0
    /// The longest such wait, in microseconds, while one request after another comes.
    public var gatherLimitMicroseconds: UInt64 = 50_000

    /// Limits with the given bounds; `prefillChunk` is rounded down to a multiple of 64, at least 64.
    public init(rowsPerStep: Int, prefillChunk: Int, running: Int, waiting: Int) {
        self.prefillChunk = max(64, prefillChunk / 64 * 64)
        self.running = max(1, running)
        self.rowsPerStep = max(rowsPerStep, self.running + 64)
        self.waiting = max(0, waiting)
        prefillBesideDecode = self.prefillChunk
        receiving = self.running
    }

    /// The position at which a prompt's next step ends at the latest, so that its state can be kept there.
    func stop(of scheduled: Scheduler.Scheduled) -> Int {
        guard keepsPrefixes else { return scheduled.target }
        let next = (scheduled.computed / snapshotTokens + 1) * snapshotTokens
        return min(scheduled.target, next, scheduled.branch > scheduled.computed ? scheduled.branch : .max)
    }

    /// True where a request's state is kept on its way: where others went another way, every so often, and where its
    /// answer begins. Who hands its state out keeps it without a copy when it is done.
    func keeps(_ scheduled: Scheduler.Scheduled) -> Bool {
        let (request, computed) = (scheduled.request, scheduled.computed)
        guard keepsPrefixes, computed > 0, request.tokens.count >= computed, request.part != .decode else {
            return false
        }
        return computed == scheduled.branch || computed == request.promptCount
            || computed < request.promptCount && computed % snapshotTokens == 0
    }

    /// Tokens set aside at most for what a request may still generate that was preempted so often.
    func expected(afterPreemptions count: Int) -> Int {
        let (tokens, overflow) = expectedTokens.multipliedReportingOverflow(by: 1 << min(max(0, count), 32))
        return overflow ? .max : tokens
    }
}
