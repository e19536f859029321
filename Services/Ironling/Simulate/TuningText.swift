import FusedMoE

/// What the tile tuner found, for people and for scripts.
enum TuningText {
    /// The fastest tiles and what tuning gained.
    static func lines(_ outcome: TileTuner.Outcome) -> [String] {
        let shown = outcome.candidates.prefix(8)
        let width = shown.map { $0.tile.description.count }.max() ?? 0
        var lines = ["tile".padding(toLength: width + 2, withPad: " ", startingAt: 0) + "time (ms)"]
        lines += shown.map { candidate in
            candidate.tile.description.padding(toLength: width + 2, withPad: " ", startingAt: 0)
                + KernelReport.number(candidate.milliseconds)
        }
        let gain = KernelReport.number(self.gain(outcome), 1)
        lines.append(
            outcome.best == outcome.start
                ? "\(outcome.candidates.count) tiles; none is faster than \(outcome.start.tile)"
                : "\(outcome.candidates.count) tiles; the best is \(gain) % faster than \(outcome.start.tile), which takes "
                    + "\(KernelReport.number(outcome.start.milliseconds)) ms")
        if outcome.isBudgetSpent { lines.append("the search ended with its budget: there may be faster ones") }
        return lines
    }

    /// The same as JSON.
    static func object(_ outcome: TileTuner.Outcome) -> [String: Any] {
        [
            "simulated": outcome.candidates.count, "start_tile": sizes(outcome.start.tile),
            "start_ms": outcome.start.milliseconds, "best_ms": outcome.best.milliseconds,
            "gain_percent": gain(outcome), "budget_spent": outcome.isBudgetSpent,
        ]
    }

    /// A tile's sizes by name, without those its kernel does not have.
    static func sizes(_ tile: TileConfiguration) -> [String: Int] {
        Dictionary(uniqueKeysWithValues: tile.sizes.map { ($0.name, $0.size) })
    }

    private static func gain(_ outcome: TileTuner.Outcome) -> Double {
        100 * (outcome.start.milliseconds - outcome.best.milliseconds) / outcome.start.milliseconds
    }
}
