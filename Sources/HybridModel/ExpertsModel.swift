import Checkpoint
import Numerics

/// The experts service's part of the model: the routed experts of one shard, and the shared expert, of every MoE layer.
/// It keeps nothing between calls.
public final class ExpertsModel {
    /// What `config.json` says.
    public let configuration: ModelConfiguration
    /// Routed experts this process owns.
    public let experts: Range<Int>
    /// Which part of the experts this is.
    public let shard: ExpertShard
    /// Rows one call may have.
    public let maximumRows: Int
    /// Bytes of the mapped tensors.
    public let weightByteCount: Int
    /// Stored type of the routed experts' matrices.
    public var weightType: ElementType {
        layers.values.lazy.compactMap(\.routed.first?.gate.elementType).first ?? .bfloat16
    }

    private struct Layer {
        let routed: [FeedForwardWeights]
        let shared: FeedForwardWeights?
    }

    /// Rows that go through one SwiGLU: a run of the gathered rows.
    private struct Work {
        let weights: FeedForwardWeights
        let first: Int
        let count: Int
    }

    /// Bytes of everything a call writes.
    public var scratchByteCount: Int {
        gathered.byteCount + gates.byteCount + ups.byteCount + outputs.byteCount + 8 * order.capacity
    }

    private let team: ThreadTeam
    private let tensors: TensorSet
    private let layers: [Int: Layer]
    private let gathered: FloatBuffer
    private let gates: FloatBuffer
    private let ups: FloatBuffer
    private let outputs: FloatBuffer
    private let widest: Int
    private let gatheredStride: Int
    private let upStride: Int
    private let scratchBytes: Int
    private var order: [Int] = []
    private var work: [Work] = []
    private var starts: [Int]

    /// Maps and checks the tensors of `shard`.
    ///
    /// - Throws: `CheckpointError` that names the tensor.
    public init(
        checkpoint: Checkpoint, shard: ExpertShard, team: ThreadTeam, maximumRows: Int
    ) throws(CheckpointError) {
        let c = checkpoint.configuration
        configuration = c
        self.team = team
        self.maximumRows = maximumRows
        let experts = shard.range(expertCount: c.expertCount)
        self.experts = experts
        self.shard = shard
        let tensors = try TensorSet(checkpoint) { name in Self.owns(name, experts, layerCount: c.layerCount) }
        self.tensors = tensors
        weightByteCount = tensors.byteCount
        var layers: [Int: Layer] = [:]
        for layer in c.denseLayerCount..<c.layerCount {
            layers[layer] = try Self.layer(layer, experts, tensors, c)
        }
        self.layers = layers
        widest = max(c.expertIntermediateSize, c.sharedIntermediateSize)
        let all = layers.values.flatMap { $0.routed + [$0.shared].compactMap { $0 } }
        gatheredStride = all.map { Kernels.packedWidth($0.gate) }.max() ?? 0
        upStride = all.map { Kernels.packedWidth($0.down) }.reduce(widest, max)
        scratchBytes = all.map { max(Kernels.scratchBytes($0.gate), Kernels.scratchBytes($0.down)) }.max() ?? 0
        starts = [Int](repeating: 0, count: experts.count + 1)
        let rows = maximumRows * (c.expertsPerToken + 1)
        gathered = FloatBuffer(rows * gatheredStride)
        gates = FloatBuffer(rows * widest)
        ups = FloatBuffer(rows * upStride)
        outputs = FloatBuffer(rows * c.hiddenSize)
        order.reserveCapacity(rows)
        work.reserveCapacity(experts.count + 1)
    }

    private static func layer(
        _ layer: Int, _ experts: Range<Int>, _ tensors: TensorSet, _ c: ModelConfiguration
    ) throws(CheckpointError) -> Layer {
        let prefix = "model.layers.\(layer).mlp."
        var routed: [FeedForwardWeights] = []
        for expert in experts {
            routed.append(
                try FeedForwardWeights(
                    tensors, prefix: prefix + "experts.\(expert).", width: c.expertIntermediateSize,
                    hidden: c.hiddenSize))
        }
        guard c.sharedIntermediateSize > 0 else { return Layer(routed: routed, shared: nil) }
        let shared = try FeedForwardWeights(
            tensors, prefix: prefix + "shared_experts.", width: c.sharedIntermediateSize, hidden: c.hiddenSize)
        return Layer(routed: routed, shared: shared)
    }

    static func owns(_ name: String, _ experts: Range<Int>, layerCount: Int) -> Bool {
        let parts = name.split(separator: ".")
        guard parts.count > 4, parts[1] == "layers", let layer = Int(parts[2]), layer < layerCount else { return false }
        if parts[4] == "shared_experts" { return true }
        guard parts[4] == "experts", parts.count > 5, let expert = Int(parts[5]) else { return false }
        return experts.contains(expert)
    }

    /// The matrices of one SwiGLU expert.
    public struct Matrices: Sendable {
        /// Gate and up, [width, hidden], and down, [hidden, width].
        public let gate, up, down: WeightMatrix

        init(_ weights: FeedForwardWeights) { (gate, up, down) = (weights.gate, weights.up, weights.down) }
    }

    /// The matrices of a layer's routed experts of this shard and of its shared expert; nil when it has none. They live as
    /// long as the model.
    public func matrices(layer index: Int) -> (routed: [Matrices], shared: Matrices?)? {
        layers[index].map { ($0.routed.map(Matrices.init), $0.shared.map(Matrices.init)) }
    }

    /// True when `layer` has routed experts.
    public func hasLayer(_ layer: Int) -> Bool { layers[layer] != nil }

    /// Runs pairs (row, expert) and shared rows of one layer.
    ///
    /// - rows: [_, h]; pairRow, pairExpert: [pairCount], experts by global id, all of this shard;
    ///   sharedRow: [sharedCount].
    /// - pairOutput: [pairCount, h] unweighted; sharedOutput: [sharedCount, h], zero without a shared expert.
    public func forward(
        layer index: Int, rows: UnsafePointer<Float>, pairRow: UnsafePointer<Int32>, pairExpert: UnsafePointer<Int32>,
        pairCount: Int, sharedRow: UnsafePointer<Int32>, sharedCount: Int,
        pairOutput: UnsafeMutablePointer<Float>, sharedOutput: UnsafeMutablePointer<Float>
    ) {
        guard let layer = layers[index] else { return }
        let h = configuration.hiddenSize
        plan(layer, pairExpert, pairCount, sharedCount)
        let shared = layer.shared == nil ? 0 : sharedCount
        team.reserve(shared: 0, perWorker: scratchBytes)
        forEachRow { item, position in
            let pair = order[position]
            let row = pair < pairCount ? pairRow[pair] : sharedRow[pair - pairCount]
            Kernels.pack(
                rows + Int(row) * h, for: item.weights.gate, into: gathered.pointer + position * gatheredStride)
        }
        runGates()
        forEachRow { item, position in
            Kernels.pack(
                gates.pointer + position * widest, for: item.weights.down, into: ups.pointer + position * upStride)
        }
        runDown()
        forEachRow { _, position in
            let pair = order[position]
            let target = pair < pairCount ? pairOutput + pair * h : sharedOutput + (pair - pairCount) * h
            target.update(from: outputs.pointer + position * h, count: h)
        }
        if shared == 0 { sharedOutput.update(repeating: 0, count: sharedCount * h) }
    }

    /// Sorts the pairs by expert, keeping their order within one, and appends the shared rows.
    private func plan(_ layer: Layer, _ pairExpert: UnsafePointer<Int32>, _ pairCount: Int, _ sharedCount: Int) {
        work.removeAll(keepingCapacity: true)
        order.removeAll(keepingCapacity: true)
        for index in starts.indices { starts[index] = 0 }
        for pair in 0..<pairCount { starts[Int(pairExpert[pair]) - experts.lowerBound + 1] += 1 }
        for index in 0..<experts.count {
            let count = starts[index + 1]
            if count > 0 { work.append(Work(weights: layer.routed[index], first: starts[index], count: count)) }
            starts[index + 1] += starts[index]
        }
        for _ in 0..<pairCount { order.append(0) }
        for pair in 0..<pairCount {
            let index = Int(pairExpert[pair]) - experts.lowerBound
            order[starts[index]] = pair
            starts[index] += 1
        }
        guard let shared = layer.shared, sharedCount > 0 else { return }
        work.append(Work(weights: shared, first: order.count, count: sharedCount))
        for row in 0..<sharedCount { order.append(pairCount + row) }
    }

    private static let outputsPerPart = 64
    private static let rowsPerPart = 32

    /// Calls `body` with a piece of work, a run of `size` of its `extent`, and the thread, shared out over the team.
    private func forEachPart(_ size: Int, of extent: (Work) -> Int, _ body: (Work, Range<Int>, Int) -> Void) {
        let parts = work.reduce(0) { $0 + (extent($1) + size - 1) / size }
        team.run(parts) { part, worker in
            var left = part
            for item in work {
                let count = (extent(item) + size - 1) / size
                guard left >= count else {
                    body(item, left * size..<min(extent(item), (left + 1) * size), worker)
                    return
                }
                left -= count
            }
        }
    }

    /// Calls `body` with every gathered row, on this thread when they are few.
    private func forEachRow(_ body: (Work, Int) -> Void) {
        guard order.count > Self.rowsPerPart else {
            for item in work {
                for position in item.first..<item.first + item.count { body(item, position) }
            }
            return
        }
        forEachPart(Self.rowsPerPart, of: { $0.count }) { item, range, _ in
            for row in range { body(item, item.first + row) }
        }
    }

    private func runGates() {
        forEachPart(Self.outputsPerPart, of: { $0.weights.gate.rows }) { item, range, worker in
            let x = gathered.pointer + item.first * gatheredStride
            let (gate, up) = (gates.pointer + item.first * widest, ups.pointer + item.first * upStride)
            let scratch = team.workerScratch(worker)
            Kernels.multiplyPacked(
                x, item.count, gatheredStride, item.weights.gate, range, gate, widest, scratch: scratch)
            Kernels.multiplyPacked(
                x, item.count, gatheredStride, item.weights.up, range, up, upStride, scratch: scratch)
            for row in 0..<item.count {
                Kernels.siluMultiply(
                    gate + row * widest + range.lowerBound, up + row * upStride + range.lowerBound, range.count,
                    into: gate + row * widest + range.lowerBound)
            }
        }
    }

    private func runDown() {
        let h = configuration.hiddenSize
        forEachPart(Self.outputsPerPart, of: { $0.weights.down.rows }) { item, range, worker in
            Kernels.multiplyPacked(
                ups.pointer + item.first * upStride, item.count, upStride, item.weights.down, range,
                outputs.pointer + item.first * h, h, scratch: team.workerScratch(worker))
        }
    }

    /// The static `combine` with its shapes, [rowCount, h] and [rowCount, topK], the rows shared out over this model's
    /// threads.
    public func combine(
        rowCount: Int, topK: Int, pairOutput: UnsafePointer<Float>, weights: UnsafePointer<Float>,
        sharedOutput: UnsafePointer<Float>, into out: UnsafeMutablePointer<Float>
    ) {
        let (h, size) = (configuration.hiddenSize, Self.rowsPerPart)
        team.run((rowCount + size - 1) / size) { part in
            let first = part * size
            Self.combine(
                rowCount: min(size, rowCount - first), topK: topK, hidden: h, pairOutput: pairOutput + first * topK * h,
                weights: weights + first * topK, sharedOutput: sharedOutput + first * h, into: out + first * h)
        }
    }

    /// out[r] = ((w₀·o₀ + w₁·o₁) + …) + shared[r], fused and in the order of the row's expert list. Attention and experts
    /// both combine with this function, so the bits do not depend on who does it.
    public static func combine(
        rowCount: Int, topK: Int, hidden: Int, pairOutput: UnsafePointer<Float>, weights: UnsafePointer<Float>,
        sharedOutput: UnsafePointer<Float>, into out: UnsafeMutablePointer<Float>
    ) {
        for row in 0..<rowCount {
            let target = out + row * hidden
            target.update(repeating: 0, count: hidden)
            for k in 0..<topK {
                let pair = row * topK + k
                Kernels.addScaled(target, weights[pair], pairOutput + pair * hidden, hidden)
            }
            Kernels.add(target, sharedOutput + row * hidden, hidden)
        }
    }
}
