/// Looks for the fastest tile of a call by simulating candidates, like the publishers' tuner does on the machine.
public struct TileTuner: Sendable {
    /// One simulated candidate.
    public struct Candidate: Sendable, Equatable {
        /// The effective tile.
        public let tile: TileConfiguration
        /// Time of the call, ms.
        public let milliseconds: Double
    }

    /// The call whose tile is looked for.
    public let call: KernelCall
    /// Most candidates that are simulated.
    public let budget: Int

    /// A search of at most `budget` simulations.
    public init(call: KernelCall, budget: Int = 96) {
        self.call = call
        self.budget = budget
    }

    /// Candidates, fastest first. Starts at the call's tile and changes one size at a time to each of its neighbours,
    /// keeping what is faster, until nothing is or the budget is spent.
    ///
    /// - progress: called after every simulation with their number and the fastest so far.
    public func run(progress: (Int, Candidate) -> Void = { _, _ in }) throws(FusedMoEError) -> [Candidate] {
        var tried: [Candidate] = []
        var best = try simulate(call.tile)
        tried.append(best)
        progress(1, best)
        var isImproving = true
        while isImproving, tried.count < budget {
            isImproving = false
            for tile in neighbours(best.tile) where !tried.contains(where: { $0.tile == tile }) {
                guard tried.count < budget else { break }
                let candidate = try simulate(tile)
                tried.append(candidate)
                if candidate.milliseconds < best.milliseconds { (best, isImproving) = (candidate, true) }
                progress(tried.count, best)
            }
        }
        return tried.sorted { ($0.milliseconds, $0.tile.description) < ($1.milliseconds, $1.tile.description) }
    }

    private func simulate(_ tile: TileConfiguration) throws(FusedMoEError) -> Candidate {
        var call = call
        call.tile = tile
        return Candidate(tile: tile, milliseconds: Double(try call.run().result.latency) * 1e-9)
    }

    /// Legal tiles that fit, each one step from `tile` in one size (rows of a stage and of a call go together).
    private func neighbours(_ tile: TileConfiguration) -> [TileConfiguration] {
        var tiles: [TileConfiguration] = []
        func add(_ change: (inout TileConfiguration) -> Void) {
            var changed = tile
            change(&changed)
            guard changed != tile,
                let legal = try? changed.effective(for: call.problem, kernel: call.kernel, options: call.options),
                MemoryEstimate(tile: legal, problem: call.problem, kernel: call.kernel, options: call.options).fits,
                legal != tile, !tiles.contains(legal)
            else { return }
            tiles.append(legal)
        }
        for bts in [tile.bts / 2, tile.bts - 32, tile.bts - 16, tile.bts + 16, tile.bts + 32, tile.bts * 2]
        where bts >= 8 {
            for parts in [1, 2, 4] where bts % (8 * parts) == 0 {
                add { ($0.bts, $0.btc) = (bts, bts / parts) }
            }
        }
        for parts in [1, 2, 4] where tile.bts % (8 * parts) == 0 { add { $0.btc = tile.bts / parts } }
        add { ($0.bf, $0.bse) = (tile.bf * 2, tile.bse) }
        add { ($0.bf, $0.bse) = (tile.bf / 2, min(tile.bse, tile.bf / 2)) }
        add { ($0.bt, $0.bts) = (tile.bt * 2, max(tile.bts, tile.bt * 2)) }
        add { $0.bt = tile.bt / 2 }
        if call.options.computesShared(call.problem.shape) {
            add { $0.bse = tile.bse * 2 }
            add { $0.bse = tile.bse / 2 }
        }
        if call.kernel == .v1 {
            for factor in [(1, 2), (2, 1)] {
                add { $0.bd1 = tile.bd1 * factor.0 / factor.1 }
                add { $0.bd2 = tile.bd2 * factor.0 / factor.1 }
            }
        }
        return tiles
    }
}
