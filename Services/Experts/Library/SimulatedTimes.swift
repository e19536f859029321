import Dispatch
import FusedMoE
import Observability
import Synchronization
import TPU

/// Simulated times of the calls that were served. Simulating happens off the reply path, once per summary, and may take
/// one twentieth of the time the real calls took: until then a call's time is unknown.
public final class SimulatedTimes: Sendable {
    private struct State {
        var known: [LayerSimulation.Summary: Picoseconds] = [:]
        var refused: Set<LayerSimulation.Summary> = []
        var isBusy = false
        var spentNanoseconds: Int64 = 0
        var calls: Int64 = 0
        var total: Picoseconds = 0
    }

    /// Real time per time spent on simulating.
    private static let realShare: Int64 = 20

    private let simulation: LayerSimulation
    private let state = Mutex(State())
    private let queue = DispatchQueue(label: "simulated layer", qos: .utility)

    /// No times yet.
    public init(_ simulation: LayerSimulation) { self.simulation = simulation }

    /// The time of a call, or nil when it has not been simulated yet.
    ///
    /// - kernelNanoseconds: time all real calls have taken so far; it pays for simulating.
    public func time(_ summary: LayerSimulation.Summary, kernelNanoseconds: Int64) -> Picoseconds? {
        let (time, starts) = state.withLock { state -> (Picoseconds?, Bool) in
            if let time = state.known[summary] {
                state.calls += 1
                state.total += time
                return (time, false)
            }
            guard !state.isBusy, !state.refused.contains(summary),
                state.spentNanoseconds * Self.realShare <= kernelNanoseconds
            else { return (nil, false) }
            state.isBusy = true
            return (nil, true)
        }
        if starts { queue.async { [self] in simulate(summary) } }
        return time
    }

    private func simulate(_ summary: LayerSimulation.Summary) {
        let started = DispatchTime.now().uptimeNanoseconds
        let time = try? simulation.time(summary)
        let spent = Int64(DispatchTime.now().uptimeNanoseconds - started)
        state.withLock { state in
            state.isBusy = false
            state.spentNanoseconds += spent
            guard let time else {
                state.refused.insert(summary)
                return
            }
            state.known[summary] = time
        }
    }

    /// Counters for `status`.
    public var counters: [String: Int64] {
        state.withLock { state in
            [
                "simulated_calls": state.calls, "simulated_picoseconds": state.total,
                "simulating_nanoseconds": state.spentNanoseconds, "simulated_summaries": Int64(state.known.count),
            ]
        }
    }
}
