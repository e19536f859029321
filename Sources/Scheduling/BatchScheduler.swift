import StatePools

/// Limits of one attention instance's scheduler. Every queue and every step has one.
public struct SchedulerLimits: Sendable, Equatable {
    /// Rows (tokens) computed in one step, decode and prefill together.
    public var rowsPerStep: Int
    /// Rows of one prompt computed in one step; a multiple of 64, so that every chunk starts on a GLA chunk boundary.
    public var prefillChunk: Int
    /// Requests that hold memory at once.
    public var running: Int
    /// Requests that wait for memory; one more is rejected.
    public var waiting: Int

    /// Limits with the given bounds; `prefillChunk` is rounded down to a multiple of 64, at least 64.
    public init(rowsPerStep: Int, prefillChunk: Int, running: Int, waiting: Int) {
        self.prefillChunk = max(64, prefillChunk / 64 * 64)
        self.running = max(1, running)
        self.rowsPerStep = max(rowsPerStep, self.running + 64)
        self.waiting = waiting
    }
}

/// Why a request was turned away before it held anything. Both are safe to retry elsewhere or later, the second never.
public enum AdmissionRefusal: Error, Sendable, Equatable, CustomStringConvertible {
    /// The waiting queue is at its limit.
    case queueFull(limit: Int)
    /// The request could never fit into this instance's pools.
    case neverFits(tokens: Int, limit: Int)

    /// One sentence with the limit.
    public var description: String {
        switch self {
        case .queueFull(let limit): "the waiting queue is at its limit of \(limit) requests"
        case .neverFits(let tokens, let limit):
            "prompt and max_tokens together are \(tokens) tokens, the KV pool holds \(limit)"
        }
    }
}

/// One request's part of a step.
public struct StepEntry: Sendable, Equatable {
    /// The request.
    public let id: UInt64
    /// Its memory.
    public let reservation: Reservation
    /// Absolute positions computed in this step.
    public let positions: Range<Int>
    /// True for prompt tokens, which go through the chunk-wise kernels.
    public let isPrefill: Bool
    /// True when the last row's hidden state is sampled.
    public let samples: Bool
}

/// Continuous batching as a value: requests in, step plans out. It reads no clock and does no I/O.
///
/// A step takes every running decode row first, then prompts in the order they came, each at most `prefillChunk` rows
/// and cut at multiples of 64. Memory for a request's whole possible length is reserved when it enters.
public struct BatchScheduler: Sendable {
    private struct Request {
        let id: UInt64
        let promptTokens: Int
        let maximumTokens: Int
        var reservation: Reservation?
        var computed = 0
    }

    /// The limits in force.
    public let limits: SchedulerLimits
    /// The memory bookkeeping.
    public private(set) var pools: StatePools
    private var waiting: [Request] = []
    private var running: [Request] = []

    /// A scheduler over empty pools.
    public init(limits: SchedulerLimits, pools: StatePools) {
        self.limits = limits
        self.pools = pools
    }

    /// Requests that wait for memory.
    public var waitingCount: Int { waiting.count }
    /// Requests that hold memory.
    public var runningCount: Int { running.count }
    /// True when a step would have something to do.
    public var hasWork: Bool { !waiting.isEmpty || !running.isEmpty }

    /// Queues a request of `promptTokens` that may generate up to `maximumTokens`.
    public mutating func submit(id: UInt64, promptTokens: Int, maximumTokens: Int) throws(AdmissionRefusal) {
        let capacity = pools.pageCount * pools.pageTokens
        let (total, overflow) = promptTokens.addingReportingOverflow(maximumTokens)
        guard !overflow, total <= capacity else { throw .neverFits(tokens: overflow ? .max : total, limit: capacity) }
        guard waiting.count < limits.waiting else { throw .queueFull(limit: limits.waiting) }
        waiting.append(Request(id: id, promptTokens: promptTokens, maximumTokens: maximumTokens))
    }

    /// Removes a request and frees what it held. Must be called between steps: a step in flight still writes there.
    public mutating func remove(id: UInt64) {
        waiting.removeAll { $0.id == id }
        guard let index = running.firstIndex(where: { $0.id == id }) else { return }
        if let reservation = running.remove(at: index).reservation {
            let released = pools.release(reservation)
            assert(released, "a running request holds a live reservation")
        }
    }

    /// Plans the next step: admits what fits, then decode rows, then prompt chunks.
    public mutating func planStep() -> [StepEntry] {
        admit()
        var rows = limits.rowsPerStep
        var plan: [StepEntry] = []
        for request in running where request.computed >= request.promptTokens && rows > 0 {
            guard let reservation = request.reservation else { continue }
            plan.append(
                StepEntry(
                    id: request.id, reservation: reservation, positions: request.computed..<(request.computed + 1),
                    isPrefill: false, samples: true))
            rows -= 1
        }
        for request in running where request.computed < request.promptTokens {
            guard let entry = prefillEntry(request, rows: rows) else { continue }
            rows -= entry.positions.count
            plan.append(entry)
        }
        return plan
    }

    /// Records that a planned step was computed.
    public mutating func complete(_ plan: [StepEntry]) {
        for entry in plan {
            guard let index = running.firstIndex(where: { $0.id == entry.id }) else { continue }
            running[index].computed = entry.positions.upperBound
        }
    }

    private func prefillEntry(_ request: Request, rows: Int) -> StepEntry? {
        guard let reservation = request.reservation else { return nil }
        let left = request.promptTokens - request.computed
        var count = min(left, limits.prefillChunk, rows)
        if count < left { count = count / 64 * 64 }
        guard count > 0 else { return nil }
        return StepEntry(
            id: request.id, reservation: reservation, positions: request.computed..<(request.computed + count),
            isPrefill: true, samples: count == left)
    }

    private mutating func admit() {
        while running.count < limits.running, var next = waiting.first {
            guard let reservation = try? pools.reserve(tokens: next.promptTokens + next.maximumTokens) else { return }
            next.reservation = reservation
            waiting.removeFirst()
            running.append(next)
        }
    }
}
