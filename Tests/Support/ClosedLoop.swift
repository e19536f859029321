import DeploymentModel
import TPU

/// A closed loop of equal requests, step by step and without a scheduler's bookkeeping: prompts first and in order, decode
/// rows wait for them, a request that ends is replaced at once. `ServingSimulator` runs the real scheduler; where nothing
/// is preempted both must come to the same, which is what this is for.
public struct ClosedLoop: ServingRunner {
    private struct Request {
        let started: Picoseconds
        var prompt: Int
        var computed = 0
        var left: Int
        var firstToken: Picoseconds = 0
    }

    private struct State {
        var ranks: [[Request]]
        var now: Picoseconds = 0
        var started = 0
        var firstTokens = 0.0
        var tokenTimes = 0.0
        var decodeRows = 0
        var decodeTime: Picoseconds = 0
    }

    /// A runner.
    public init() {}

    /// Runs the loop to its end.
    public func measure(_ loop: ServingCase, on deployment: Deployment) -> ServingMeasurement {
        var deployment = deployment
        var state = State(ranks: Array(repeating: [], count: deployment.ranks))
        for _ in 0..<min(loop.concurrency, loop.requests) { start(loop, &state) }
        while state.ranks.contains(where: { !$0.isEmpty }) { step(loop, &deployment, &state) }
        let (seconds, count) = (Double(state.now) * 1e-12, Double(max(1, loop.requests)))
        return ServingMeasurement(
            outputTokensPerSecond: count * Double(loop.outputTokens) / seconds,
            promptTokensPerSecond: count * Double(loop.promptTokens) / seconds,
            firstTokenMilliseconds: state.firstTokens / count, tokenMilliseconds: state.tokenTimes / count,
            seconds: seconds,
            decodeTokensPerSecond: state.decodeTime == 0
                ? 0 : Double(state.decodeRows) / (Double(state.decodeTime) * 1e-12))
    }

    private func start(_ loop: ServingCase, _ state: inout State) {
        guard state.started < loop.requests else { return }
        state.started += 1
        let rank = state.ranks.indices.min { state.ranks[$0].count < state.ranks[$1].count } ?? 0
        state.ranks[rank].append(
            Request(started: state.now, prompt: loop.promptTokens, left: max(1, loop.outputTokens)))
    }

    private func step(_ loop: ServingCase, _ deployment: inout Deployment, _ state: inout State) {
        let isPrefill = state.ranks.contains { $0.contains { $0.computed < $0.prompt } }
        var work = StepWork(ranks: deployment.ranks, each: [])
        var taken: [(rank: Int, index: Int, rows: Int)] = []
        for rank in state.ranks.indices {
            var room = isPrefill ? deployment.options.rowsPerRank : Int.max
            for (index, request) in state.ranks[rank].enumerated() where room > 0 {
                let rows = isPrefill ? min(request.prompt - request.computed, room) : 1
                guard rows > 0 else { continue }
                room -= rows
                taken.append((rank, index, rows))
                work.ranks[rank].append(
                    isPrefill
                        ? .prefill(
                            rows: rows, context: request.computed, samples: request.computed + rows == request.prompt)
                        : .decode(context: request.computed))
            }
        }
        let time = deployment.cost(of: work).total
        state.now += time
        if !isPrefill {
            state.decodeRows += taken.count
            state.decodeTime += time
        }
        let now = state.now
        for entry in taken { Self.advance(&state.ranks[entry.rank][entry.index], entry.rows, isPrefill, now: now) }
        finish(loop, &state)
    }

    private static func advance(_ request: inout Request, _ rows: Int, _ isPrefill: Bool, now: Picoseconds) {
        request.computed += rows
        guard !isPrefill || request.computed == request.prompt else { return }
        request.left -= 1
        if isPrefill { request.firstToken = now }
    }

    private func finish(_ loop: ServingCase, _ state: inout State) {
        var ended = 0
        for rank in state.ranks.indices {
            for request in state.ranks[rank] where request.left == 0 {
                ended += 1
                state.firstTokens += Double(request.firstToken - request.started) * 1e-9
                state.tokenTimes +=
                    Double(state.now - request.firstToken) * 1e-9 / Double(max(1, loop.outputTokens - 1))
            }
            state.ranks[rank].removeAll { $0.left == 0 }
        }
        for _ in 0..<ended { start(loop, &state) }
    }
}
