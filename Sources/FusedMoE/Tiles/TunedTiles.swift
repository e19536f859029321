import Numerics

/// The tiles the publishers tuned, as data (docs/kernels.md#tuned-tiles), and what is used where they tuned nothing.
public enum TunedTiles {
    /// Tiles of one layer and kernel by token count.
    struct Table {
        let kernel: KernelVersion
        let shape: MoEShape
        let scaleBlock: ScaleBlock
        let devices: Int
        /// Nil: any.
        let isShared: Bool?
        /// Nil: any.
        let isQuantized: Bool?
        let tiles: [Int: TileConfiguration]

        func covers(_ problem: MoEProblem, _ kernel: KernelVersion, isShared: Bool) -> Bool {
            self.kernel == kernel && devices == problem.devices && scaleBlock == problem.quantization.scaleBlock
                && problem.quantization.weights == .float8E4M3 && shape == problem.shape
                && (self.isShared ?? isShared) == isShared
                && (isQuantized ?? problem.quantization.tokens.isQuantized)
                    == problem.quantization.tokens.isQuantized
        }
    }

    /// What the kernels use for a token count or layer that nobody tuned.
    public static func fallback(_ kernel: KernelVersion) -> TileConfiguration {
        switch kernel {
        case .v1: TileConfiguration(bt: 32, bf: 512, bts: 32, btc: 32, bse: 256, bd1: 1024, bd2: 1024)
        case .v2: TileConfiguration(bt: 32, bf: 512, bts: 0, btc: 32, bse: 256)
        }
    }

    /// The tile for a call, tuned if there is one for its very token count, and in line with the call's sizes; then
    /// with the sizes a user gave.
    ///
    /// Where the fallback tile does not fit the device's memories, the tuned tile of the nearest token count is taken.
    ///
    /// - Throws: `FusedMoEError` when no tile can be made for the call, or the user's sizes are refused.
    public static func tile(
        for problem: MoEProblem, kernel: KernelVersion, options: KernelOptions, overrides: TileOverrides = .init()
    ) throws(FusedMoEError) -> TileConfiguration {
        guard overrides != TileOverrides() else {
            return try base(problem, kernel, options).effective(for: problem, kernel: kernel, options: options)
        }
        if kernel == .v2, let size = ["bd1", "bd2"].first(where: { overrides.sizes[$0] != nil }) {
            throw FusedMoEError(.tile, "\(size) is a size of v1: v2 does not slice the hidden width")
        }
        // Where no tile of ours fits, the user's may.
        let base = (try? base(problem, kernel, options)) ?? fitted(fallback(kernel), to: problem, options)
        let given = overrides.applied(to: base)
        let tile: TileConfiguration
        do { tile = try given.effective(for: problem, kernel: kernel, options: options) } catch {
            throw FusedMoEError(error.code, "\(error.description); the sizes that were given lead to \(given)")
        }
        try MemoryEstimate(tile: tile, problem: problem, kernel: kernel, options: options).check()
        return tile
    }

    /// Where a tile comes from.
    public enum Origin: String, Sendable {
        /// The publishers tuned it for this layer and token count.
        case tuned
        /// What the kernel uses where nobody tuned.
        case fallback = "default"
        /// Given by a user, found by the tuner, or borrowed from another token count.
        case other
    }

    /// Where the tile of a call comes from.
    public static func origin(of call: KernelCall) -> Origin {
        let (problem, options) = (call.problem, call.options)
        func isUsed(_ tile: TileConfiguration) -> Bool {
            (try? tile.effective(for: problem, kernel: call.kernel, options: options)) == call.tile
        }
        var whole = options
        whole.ablations = []
        let isShared = whole.computesShared(problem.shape)
        let tuned = tables.lazy.filter { $0.covers(problem, call.kernel, isShared: isShared) }
            .compactMap { $0.tiles[problem.tokens] }
        if tuned.contains(where: isUsed) { return .tuned }
        return isUsed(fitted(fallback(call.kernel), to: problem, whole)) ? .fallback : .other
    }

    /// The first candidate that is legal and fits.
    private static func base(
        _ problem: MoEProblem, _ kernel: KernelVersion, _ options: KernelOptions
    ) throws(FusedMoEError) -> TileConfiguration {
        var candidates: [TileConfiguration] = []
        let known = tables.filter { $0.covers(problem, kernel, isShared: options.computesShared(problem.shape)) }
        if let tuned = known.lazy.compactMap({ $0.tiles[problem.tokens] }).first { candidates.append(tuned) }
        candidates.append(fallback(kernel))
        candidates += nearest(problem, known.isEmpty ? tables.filter { $0.kernel == kernel } : known)
        // Weights of two or four bytes need narrower tiles than any that was tuned.
        for divisor in [2, 4] { candidates += candidates.map { $0.narrowed(by: divisor) } }
        var failure: FusedMoEError?
        for candidate in candidates {
            do {
                let fitted = fitted(candidate, to: problem, options)
                let tile = try fitted.effective(for: problem, kernel: kernel, options: options)
                try MemoryEstimate(tile: tile, problem: problem, kernel: kernel, options: options).check()
                return fitted
            } catch {
                failure = failure ?? error
            }
        }
        throw failure ?? FusedMoEError(.tile, "no tile fits this call")
    }

    /// Every tile that was tuned for a kernel, with widths that divide the call's.
    static func known(
        _ problem: MoEProblem, _ kernel: KernelVersion, _ options: KernelOptions
    ) -> [TileConfiguration] {
        nearest(problem, tables.filter { $0.kernel == kernel }).map { fitted($0, to: problem, options) }
    }

    private static func nearest(_ problem: MoEProblem, _ tables: [Table]) -> [TileConfiguration] {
        func distance(_ tokens: Int) -> Int { abs(tokens.leadingZeroBitCount - problem.tokens.leadingZeroBitCount) }
        return tables.flatMap(\.tiles)
            .sorted {
                (distance($0.key), $0.key, $0.value.description) < (distance($1.key), $1.key, $1.value.description)
            }
            .map(\.value)
    }

    /// A tile whose widths divide the layer's widths.
    private static func fitted(
        _ tile: TileConfiguration, to problem: MoEProblem, _ options: KernelOptions
    ) -> TileConfiguration {
        var result = tile
        let shape = problem.shape
        result.bf = TileOverrides.divisor(of: shape.intermediate, atMost: tile.bf, unit: 128)
        let shared = options.computesShared(shape) ? shape.sharedIntermediate : result.bf
        result.bse = TileOverrides.divisor(of: shared, atMost: min(tile.bse, result.bf), unit: 128)
        if tile.bd1 > 0 {
            result.bd1 = TileOverrides.divisor(of: shape.hidden, atMost: tile.bd1, unit: 256)
            result.bd2 = TileOverrides.divisor(of: shape.hidden, atMost: tile.bd2, unit: 256)
        }
        return result
    }
}

extension TunedTiles {
    private static func v2(
        _ bt: Int, _ bf: Int, _ btc: Int, _ bse: Int, _ bts: Int
    ) -> TileConfiguration { TileConfiguration(bt: bt, bf: bf, bts: bts, btc: btc, bse: bse) }

    private static func v1(
        _ bt: Int, _ bf: Int, _ bd1: Int, _ bd2: Int, _ bts: Int, _ btc: Int, _ bse: Int
    ) -> TileConfiguration {
        TileConfiguration(bt: bt, bf: bf, bts: bts, btc: btc, bse: bse, bd1: bd1, bd2: bd2)
    }

    private static let mimo = MoEShape(hidden: 6144, intermediate: 2048, experts: 384, topK: 8)
    private static let glm = MoEShape(hidden: 6144, intermediate: 2048, experts: 256, topK: 8)

    static let tables: [Table] = [
        Table(
            kernel: .v2, shape: .ling1T, scaleBlock: .perChannel, devices: 32, isShared: false, isQuantized: nil,
            tiles: [
                64: v2(8, 256, 8, 256, 8), 128: v2(8, 256, 8, 256, 8), 256: v2(8, 256, 16, 256, 16),
                512: v2(16, 1024, 32, 256, 32), 8192: v2(128, 512, 160, 256, 160),
                16384: v2(128, 512, 80, 256, 160),
            ]),
        Table(
            kernel: .v2, shape: .ling1T, scaleBlock: .perChannel, devices: 32, isShared: true, isQuantized: true,
            tiles: [
                64: v2(8, 256, 8, 128, 8), 128: v2(8, 512, 16, 128, 16), 256: v2(8, 256, 16, 128, 16),
                512: v2(16, 1024, 32, 1024, 32), 8192: v2(128, 512, 80, 512, 160),
                16384: v2(128, 512, 80, 512, 160),
            ]),
        Table(
            kernel: .v2, shape: mimo, scaleBlock: .inputs128, devices: 32, isShared: false, isQuantized: false,
            tiles: [
                64: v2(8, 512, 8, 256, 8), 128: v2(8, 512, 8, 256, 8), 256: v2(8, 512, 16, 256, 16),
                512: v2(16, 1024, 32, 256, 32), 768: v2(24, 1024, 32, 256, 32), 2048: v2(128, 512, 128, 256, 0),
                4096: v2(128, 512, 128, 256, 0), 8192: v2(128, 1024, 56, 256, 112),
                16384: v2(256, 1024, 72, 256, 216),
            ]),
        Table(
            kernel: .v2, shape: glm, scaleBlock: .inputs128, devices: 32, isShared: true, isQuantized: true,
            tiles: [
                32: v2(8, 512, 8, 128, 8), 64: v2(8, 512, 8, 128, 8), 128: v2(8, 512, 16, 128, 16),
                256: v2(8, 512, 16, 128, 16), 512: v2(16, 1024, 32, 1024, 32), 1024: v2(32, 1024, 64, 1024, 64),
                2048: v2(64, 1024, 40, 1024, 80), 4096: v2(128, 1024, 32, 1024, 160),
                8192: v2(128, 1024, 32, 1024, 160), 16384: v2(128, 1024, 32, 1024, 160),
            ]),
        Table(
            kernel: .v1, shape: .ling1T, scaleBlock: .perChannel, devices: 32, isShared: true, isQuantized: false,
            tiles: [
                64: v1(2, 2048, 4096, 4096, 4, 4, 512), 128: v1(4, 2048, 4096, 4096, 8, 8, 256),
                256: v1(8, 2048, 2048, 2048, 16, 16, 2048), 512: v1(16, 2048, 2048, 2048, 32, 32, 1024),
                1024: v1(32, 2048, 2048, 2048, 64, 16, 1024), 2048: v1(64, 2048, 1024, 1024, 128, 32, 512),
                4096: v1(128, 1024, 1024, 1024, 256, 32, 512), 8192: v1(256, 256, 1024, 1024, 512, 128, 512),
                16384: v1(128, 1024, 512, 512, 128, 128, 1024), 32768: v1(128, 1024, 512, 512, 128, 128, 1024),
            ]),
        Table(
            kernel: .v1, shape: .ling1T, scaleBlock: .perChannel, devices: 32, isShared: false, isQuantized: false,
            tiles: [
                64: v1(2, 2048, 2048, 2048, 16, 8, 2048), 128: v1(4, 2048, 2048, 2048, 16, 16, 2048),
                256: v1(8, 2048, 2048, 2048, 16, 16, 2048), 512: v1(16, 2048, 2048, 2048, 32, 32, 2048),
                8192: v1(128, 1024, 1024, 1024, 128, 32, 1024),
                16384: v1(128, 1024, 2048, 2048, 128, 32, 1024),
            ]),
    ]
}
