/// The rules by which the published kernels bring a tile in line with a call, and refuse one (docs/kernels.md#problem-and-tiles).
extension TileConfiguration {
    /// The tile the kernel really runs with.
    ///
    /// bt = gcd(min(bt, T_L), T_L), bts = min(bts or bt, bt·N), btc = min(btc, bts).
    ///
    /// - Throws: `FusedMoEError` with code `.tile` that names the size, the limit and the distance to it.
    public func effective(
        for problem: MoEProblem, kernel: KernelVersion, options: KernelOptions
    ) throws(FusedMoEError) -> TileConfiguration {
        try Self.require("bt", bt, atLeast: 1)
        var tile = self
        let rows = problem.rowsPerDevice(kernel)
        tile.bt = Self.greatestCommonDivisor(min(bt, rows), rows)
        tile.bts = min(bts == 0 ? tile.bt : bts, tile.bt * problem.devices)
        tile.btc = min(btc, tile.bts)
        if kernel == .v2 { (tile.bd1, tile.bd2) = (0, 0) }
        try tile.checkCommon(problem, options)
        switch kernel {
        case .v1: try tile.checkSlices(problem)
        case .v2: try tile.checkV2(problem, options)
        }
        return tile
    }

    /// Outer token tiles of a device.
    public func tokenTiles(_ problem: MoEProblem, kernel: KernelVersion) -> Int {
        problem.rowsPerDevice(kernel) / bt
    }

    /// Copies of the buffers that belong to an outer tile.
    public func banks(_ problem: MoEProblem, kernel: KernelVersion) -> Int {
        kernel == .v2 ? max(2, tokenTiles(problem, kernel: kernel)) : 2
    }

    private func checkCommon(_ problem: MoEProblem, _ options: KernelOptions) throws(FusedMoEError) {
        try Self.require("btc", btc, atLeast: 1)
        try Self.require("bts", bts, multipleOf: btc, "btc, the rows of one compute call")
        try Self.require("bf", bf, multipleOf: 128, "lanes")
        try Self.require("the intermediate width", problem.shape.intermediate, multipleOf: bf, "bf")
        guard options.computesShared(problem.shape) else { return }
        try Self.require("bse", bse, multipleOf: 128, "lanes")
        try Self.require(
            "the shared expert's intermediate width", problem.shape.sharedIntermediate, multipleOf: bse, "bse")
    }

    /// V2: tokens, accumulators and the shared expert live in the routed experts' buffers.
    private func checkV2(_ problem: MoEProblem, _ options: KernelOptions) throws(FusedMoEError) {
        try Self.require("btc", btc, multipleOf: 8, "sublanes")
        if options.computesShared(problem.shape) {
            try Self.require("bse", bse, atMost: bf, "bf: the shared expert uses the routed weights' buffers")
            try Self.require("bt", bt, atMost: bts, "bts: the shared expert's tokens use the staged rows")
        }
        if problem.quantization.tokens.isQuantized, options.prequantization == .perTile {
            try Self.require("bt", bt, atMost: bts, "bts: prequantisation per outer tile uses the staged rows")
        }
        if problem.quantization.weights == .float8E4M3, problem.quantization.scaleBlock == .inputs128 {
            try Self.require("bf", bf, multipleOf: 128, "the scale block")
        }
    }

    /// V1: hidden slices.
    private func checkSlices(_ problem: MoEProblem) throws(FusedMoEError) {
        for (name, slice) in [("bd1", bd1), ("bd2", bd2)] {
            try Self.require(name, slice, atLeast: 1)
            try Self.require(name, slice, multipleOf: 256, "two planes of lanes")
            try Self.require("the hidden width", problem.shape.hidden, multipleOf: slice, name)
        }
    }

    private static func require(_ name: String, _ value: Int, atLeast least: Int) throws(FusedMoEError) {
        guard value < least else { return }
        throw FusedMoEError(.tile, "\(name) is \(value), it must be at least \(least): \(least - value) too few")
    }

    private static func require(
        _ name: String, _ value: Int, atMost most: Int, _ reason: String
    ) throws(FusedMoEError) {
        guard value > most else { return }
        throw FusedMoEError(
            .tile, "\(name) is \(value), it must be at most \(most) (\(reason)): \(value - most) too many")
    }

    private static func require(
        _ name: String, _ value: Int, multipleOf unit: Int, _ reason: String
    ) throws(FusedMoEError) {
        guard unit < 1 || value < 1 || value % unit != 0 else { return }
        guard unit > 0 else { throw FusedMoEError(.tile, "\(reason) is \(unit), it must be at least 1") }
        throw FusedMoEError(
            .tile,
            "\(name) is \(value), it must be a multiple of \(unit) (\(reason)): \(value % unit) too many or "
                + "\(unit - value % unit) too few")
    }

    static func greatestCommonDivisor(_ a: Int, _ b: Int) -> Int {
        var (a, b) = (a, b)
        while b != 0 { (a, b) = (b, a % b) }
        return a
    }
}
