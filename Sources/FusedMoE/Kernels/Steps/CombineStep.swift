import Numerics
import TPU

/// COMBINE(b) of both kernels: the results of sixteen tokens are loaded row by row while those of the sixteen before
/// them are weighted, added and rounded.
struct CombineStep {
    let returned: Buffer
    /// Where this bank of the returned rows begins: [expert, bt].
    let firstReturned: Int
    let gatherTile: Buffer
    let loaded: SemaphoreArray
    let output: Buffer
    /// Where this bank of the output begins.
    let firstOutput: Int
    let problem: MoEProblem
    let routing: RoutingTable
    let tile: TileConfiguration
    let costs: CostModel
    let arithmetic: TileArithmetic?

    private var group: Int { TileConfiguration.greatestCommonDivisor(tile.bt, 16) }
    private var topK: Int { problem.shape.topK }
    private var hidden: Int { problem.shape.hidden }

    /// Combines the rows `tokens` of the device; the outer tile begins at row `first`, the rest of it is padding.
    ///
    /// - shared: the shared expert's rows of this tile, [bt, H]; scratch: 2·H floats.
    func run(
        tokens: Range<Int>, first: Int, shared: UnsafePointer<Float>?, scratch: UnsafeMutablePointer<Float>,
        _ core: Core
    ) async throws(DeviceError) {
        var cursors = [Int](repeating: 0, count: problem.shape.experts)
        var counts = [try load(0, tokens, first, &cursors, core), 0]
        for index in 0..<tile.bt / group {
            let slot = index & 1
            if (index + 1) * group < tile.bt {
                counts[1 - slot] = try load(index + 1, tokens, first, &cursors, core)
            }
            core.spend(costs.loop * Picoseconds(counts[slot]), .scalar)
            try await core.wait(loaded[slot], bytes: counts[slot] * returned.rowBytes)
            core.spend(costs.combine(rows: group * topK, hidden: hidden), .vector)
            try add(index, tokens, first, shared, scratch, core)
        }
    }

    /// Starts the loads of a group of tokens; returns how many rows they are.
    private func load(
        _ index: Int, _ tokens: Range<Int>, _ first: Int, _ cursors: inout [Int], _ core: Core
    ) throws(DeviceError) -> Int {
        let base = problem.firstToken(device: core.device)
        var count = 0
        for offset in 0..<group {
            let token = first + index * group + offset
            guard tokens.contains(token) else { break }
            for k in 0..<topK {
                let id = Int(routing.expertIDs[(base + token) * topK + k])
                guard id >= 0 else { continue }
                let source = returned.rows(firstReturned + id * tile.bt + cursors[id], 1)
                cursors[id] += 1
                try core.copy(
                    source, to: gatherTile.rows(((index & 1) * group + offset) * topK + k, 1),
                    signalling: loaded[index & 1])
                count += 1
            }
        }
        return count
    }

    private func add(
        _ index: Int, _ tokens: Range<Int>, _ first: Int, _ shared: UnsafePointer<Float>?,
        _ scratch: UnsafeMutablePointer<Float>, _ core: Core
    ) throws(DeviceError) {
        let results = try core.read(gatherTile.rows((index & 1) * group * topK, group * topK))
        let target = try core.write(output.rows(firstOutput + index * group, group))
        guard let arithmetic, let results, let target else { return }
        let base = problem.firstToken(device: core.device)
        let out = scratch + hidden
        var rows = [UnsafeRawPointer?](repeating: nil, count: topK)
        for offset in 0..<group {
            let place = index * group + offset
            guard tokens.contains(first + place) else { continue }
            let entry = (base + first + place) * topK
            for k in 0..<topK {
                let isNone = routing.expertIDs[entry + k] < 0
                rows[k] = isNone ? nil : results + (offset * topK + k) * gatherTile.rowBytes
            }
            routing.weights.withUnsafeBufferPointer { weights in
                guard let start = weights.baseAddress else { return }
                rows.withUnsafeBufferPointer { pointers in
                    arithmetic.combine(
                        results: pointers, weights: start + entry, shared: shared.map { $0 + place * hidden },
                        scratch: scratch, into: out)
                }
            }
            arithmetic.codec.encodeResult(out, into: target + offset * output.rowBytes)
        }
    }
}
