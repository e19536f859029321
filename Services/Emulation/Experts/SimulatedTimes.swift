import Dispatch
import FusedMoE
import Observability
import Synchronization
import TPU

/// Simulated times of the calls that were served, with the summaries that were simulated and what is left to do.
///
/// Calls of every common size are simulated before the service answers. What is asked for beyond these, skewed routings
/// above all, is simulated off the reply path, once, and only while simulating takes at most one twentieth of the time
/// that the real calls took; until then such a call has the time of uniform routing.
public final class SimulatedTimes: Sendable {
    private struct State {
        var known: [LayerSimulation.Summary: LayerSimulation.Time] = [:]
        var refused: Set<LayerSimulation.Summary> = []
        var isBusy = false
        var spentNanoseconds: Int64 = 0
        var longestNanoseconds: Int64 = 0
        var calls: Int64 = 0
        var total = LayerSimulation.Time()

        mutating func count(_ time: LayerSimulation.Time) {
            calls += 1
            total += time
        }
    }

    /// Real time per time spent on simulating.
    private static let realShare: Int64 = 20
    /// Longest that `prepare` goes on with new sizes.
    private static let preparationNanoseconds: UInt64 = 250_000_000

    private let simulation: LayerSimulation
    private let state = Mutex(State())
    private let queue = DispatchQueue(label: "simulated layer", qos: .utility)

    /// No times yet.
    public init(_ simulation: LayerSimulation) { self.simulation = simulation }

    /// Simulates uniform calls of 1, 2, 3, 4, 6, 8, … rows, up to `rows` or for a quarter of a second.
    public func prepare(rows: Int) {
        let end = DispatchTime.now().uptimeNanoseconds + Self.preparationNanoseconds
        var size = 1
        while size <= rows, DispatchTime.now().uptimeNanoseconds < end {
            let summary = LayerSimulation.Summary(rows: size, pairsPerExpert: [])
            _ = simulate(summary)
            size = summary.rows + 1
        }
    }

    /// The picoseconds of a call, or nil when nothing like it has been simulated yet.
    ///
    /// - kernelNanoseconds: time all real calls have taken so far; it pays for simulating.
    public func time(_ summary: LayerSimulation.Summary, kernelNanoseconds: Int64) -> Picoseconds? {
        let (time, starts) = state.withLock { state -> (Picoseconds?, Bool) in
            if let time = state.known[summary] {
                state.count(time)
                return (time.latency, false)
            }
            let like = state.known[summary.withoutSkew]
            if let like { state.count(like) }
            guard !state.isBusy, !state.refused.contains(summary),
                (state.spentNanoseconds + state.longestNanoseconds) * Self.realShare <= kernelNanoseconds
            else { return (like?.latency, false) }
            state.isBusy = true
            return (like?.latency, true)
        }
        if starts { queue.async { [self] in simulateWhileServing(summary) } }
        return time
    }

    /// Returns when nothing is being simulated beside serving.
    package func finishSimulating() { queue.sync {} }

    /// Counts a call that was run on the simulated device itself.
    func count(_ time: LayerSimulation.Time) { state.withLock { $0.count(time) } }

    private func simulateWhileServing(_ summary: LayerSimulation.Summary) {
        let spent = simulate(summary)
        state.withLock { state in
            state.isBusy = false
            state.spentNanoseconds += spent
        }
    }

    /// Simulates a call; returns what that took, in nanoseconds.
    private func simulate(_ summary: LayerSimulation.Summary) -> Int64 {
        let started = DispatchTime.now().uptimeNanoseconds
        let time = try? simulation.time(summary)
        let spent = Int64(DispatchTime.now().uptimeNanoseconds - started)
        state.withLock { state in
            state.longestNanoseconds = max(state.longestNanoseconds, spent)
            if let time { state.known[summary] = time } else { state.refused.insert(summary) }
        }
        return spent
    }

    /// Counters for `status` and `/metrics`: calls with a time, their time in all and engine by engine, and what simulating
    /// cost beside serving.
    public var counters: [String: Int64] {
        state.withLock { state in
            [
                "simulated_calls": state.calls, "simulated_picoseconds": state.total.latency,
                "simulated_matrix_picoseconds": state.total.matrix,
                "simulated_vector_picoseconds": state.total.vector,
                "simulated_scalar_picoseconds": state.total.scalar, "simulated_hbm_picoseconds": state.total.memory,
                "simulated_ici_picoseconds": state.total.link,
                "simulating_nanoseconds": state.spentNanoseconds, "simulated_summaries": Int64(state.known.count),
            ]
        }
    }
}
