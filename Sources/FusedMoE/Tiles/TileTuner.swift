/// Looks for the fastest tile of a call by simulating candidates, like the publishers' tuner does on the machine.
public struct TileTuner: Sendable {
    /// One simulated candidate.
    public struct Candidate: Sendable, Equatable {
        /// The effective tile.
        public let tile: TileConfiguration
        /// Time of the call, ms.
        public let milliseconds: Double
    }

    /// What a search found.
    public struct Outcome: Sendable, Equatable {
        /// The call's own tile.
        public let start: Candidate
        /// The fastest; the start itself when nothing is faster.
        public let best: Candidate
        /// All that were simulated, fastest first.
        public let candidates: [Candidate]
        /// True when the search ended because it had simulated as many as it may.
        public let isBudgetSpent: Bool
    }

    /// The call whose tile is looked for.
    public let call: KernelCall
    /// Sizes that every candidate has as the call has them.
    public let fixed: TileOverrides
    /// Most candidates that are simulated.
    public let budget: Int

    /// A search of at most `budget` simulations that leaves the sizes named in `fixed` alone.
    public init(call: KernelCall, fixed: TileOverrides = .init(), budget: Int = 128) {
        self.call = call
        self.fixed = fixed
        self.budget = max(1, budget)
    }

    /// Simulates the call's tile and every tile that was tuned for its kernel, then changes one size of the fastest at a
    /// time to each of its neighbours, keeping what is faster, until nothing is or the budget is spent. Only tiles that
    /// are legal and fit the memories are simulated.
    ///
    /// - progress: called after every simulation with their number and the fastest so far.
    /// - Throws: `FusedMoEError` when the call itself cannot be simulated.
    public func run(progress: (Int, Candidate) -> Void = { _, _ in }) throws(FusedMoEError) -> Outcome {
        let start = try simulate(call.tile)
        var tried = [start]
        var best = start
        progress(1, best)
        /// True when one of `tiles` is faster than everything before.
        func improves(_ tiles: [TileConfiguration]) throws(FusedMoEError) -> Bool {
            let known = best
            for tile in tiles where tried.count < budget && !tried.contains(where: { $0.tile == tile }) {
                let candidate = try simulate(tile)
                tried.append(candidate)
                if candidate.milliseconds < best.milliseconds { best = candidate }
                progress(tried.count, best)
            }
            return best != known
        }
        _ = try improves(legal(TunedTiles.known(call.problem, call.kernel, call.options)))
        while try improves(neighbours(best.tile)) {}
        return Outcome(
            start: start, best: best,
            candidates: tried.sorted {
                ($0.milliseconds, $0.tile.description) < ($1.milliseconds, $1.tile.description)
            }, isBudgetSpent: tried.count == budget)
    }

    private func simulate(_ tile: TileConfiguration) throws(FusedMoEError) -> Candidate {
        var call = call
        call.tile = tile
        return Candidate(tile: tile, milliseconds: Double(try call.run().result.latency) * 1e-9)
    }

    /// The effective tiles of those that may be used, each once.
    private func legal(_ tiles: [TileConfiguration]) -> [TileConfiguration] {
        var legal: [TileConfiguration] = []
        for tile in tiles {
            guard
                let effective = try? tile.effective(for: call.problem, kernel: call.kernel, options: call.options),
                TileConfiguration.fields.allSatisfy({ field in
                    fixed.sizes[field.name] == nil || effective[keyPath: field.path] == call.tile[keyPath: field.path]
                }),
                MemoryEstimate(
                    tile: effective, problem: call.problem, kernel: call.kernel, options: call.options
                ).fits, !legal.contains(effective)
            else { continue }
            legal.append(effective)
        }
        return legal
    }

    /// Tiles one step from `tile` in one size; rows of a stage and of a call go together.
    private func neighbours(_ tile: TileConfiguration) -> [TileConfiguration] {
        var tiles: [TileConfiguration] = []
        func add(_ change: (inout TileConfiguration) -> Void) {
            var changed = tile
            change(&changed)
            tiles.append(changed)
        }
        for bts in [tile.bts / 2, tile.bts - 32, tile.bts - 16, tile.bts, tile.bts + 16, tile.bts + 32, tile.bts * 2] {
            for parts in [1, 2, 4] where bts >= 8 && bts % (8 * parts) == 0 {
                add { ($0.bts, $0.btc) = (bts, bts / parts) }
            }
        }
        add { $0.bf = tile.bf * 2 }
        add { ($0.bf, $0.bse) = (tile.bf / 2, min(tile.bse, tile.bf / 2)) }
        add { ($0.bt, $0.bts) = (tile.bt * 2, max(tile.bts, tile.bt * 2)) }
        add { $0.bt = tile.bt / 2 }
        if call.options.computesShared(call.problem.shape) {
            add { $0.bse = tile.bse * 2 }
            add { $0.bse = tile.bse / 2 }
        }
        if call.kernel == .v1 {
            for (numerator, denominator) in [(1, 2), (2, 1)] {
                add { $0.bd1 = tile.bd1 * numerator / denominator }
                add { $0.bd2 = tile.bd2 * numerator / denominator }
            }
        }
        return legal(tiles)
    }
}
