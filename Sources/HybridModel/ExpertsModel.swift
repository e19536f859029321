import Checkpoint
import Numerics

/// The experts service's part of the model: the routed experts of one shard, and the shared expert, of every MoE layer.
/// It keeps nothing between calls.
public final class ExpertsModel: @unchecked Sendable {
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
    private var order: [Int] = []
    private var work: [Work] = []

    /// Maps and checks the tensors of `shard`.
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
        let rows = maximumRows * (c.expertsPerToken + 1)
        gathered = FloatBuffer(rows * c.hiddenSize)
        gates = FloatBuffer(rows * widest)
        ups = FloatBuffer(rows * widest)
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
        for (position, pair) in order.enumerated() {
            let row = pair < pairCount ? pairRow[pair] : sharedRow[pair - pairCount]
            (gathered.pointer + position * h).update(from: rows + Int(row) * h, count: h)
        }
        runGates()
        runDown()
        for (position, pair) in order.enumerated() {
            let target = pair < pairCount ? pairOutput + pair * h : sharedOutput + (pair - pairCount) * h
            target.update(from: outputs.pointer + position * h, count: h)
        }
        if shared == 0 { sharedOutput.update(repeating: 0, count: sharedCount * h) }
    }

    /// Sorts the pairs by expert, keeping their order within one, and appends the shared rows.
    private func plan(_ layer: Layer, _ pairExpert: UnsafePointer<Int32>, _ pairCount: Int, _ sharedCount: Int) {
        order.removeAll(keepingCapacity: true)
        work.removeAll(keepingCapacity: true)
        for expert in experts {
            let first = order.count
            for pair in 0..<pairCount where pairExpert[pair] == Int32(expert) { order.append(pair) }
            guard order.count > first else { continue }
            work.append(
                Work(weights: layer.routed[expert - experts.lowerBound], first: first, count: order.count - first))
        }
        guard let shared = layer.shared, sharedCount > 0 else { return }
        work.append(Work(weights: shared, first: order.count, count: sharedCount))
        for row in 0..<sharedCount { order.append(pairCount + row) }
    }

    private static let outputsPerPart = 64

    /// Calls `body` with a piece of work and a run of its outputs, shared out over the team.
    private func forEachPart(outputs: (Work) -> Int, _ body: (Work, Range<Int>) -> Void) {
        let size = Self.outputsPerPart
        let parts = work.reduce(0) { $0 + (outputs($1) + size - 1) / size }
        team.run(parts) { part in
            var left = part
            for item in work {
                let count = (outputs(item) + size - 1) / size
                guard left >= count else {
                    body(item, left * size..<min(outputs(item), (left + 1) * size))
                    return
                }
                left -= count
            }
        }
    }

    private func runGates() {
        let h = configuration.hiddenSize
        forEachPart(outputs: { $0.weights.gate.rows }) { item, range in
            let x = gathered.pointer + item.first * h
            let (gate, up) = (gates.pointer + item.first * widest, ups.pointer + item.first * widest)
            Kernels.multiply(x, item.count, h, item.weights.gate, range, gate, widest)
            Kernels.multiply(x, item.count, h, item.weights.up, range, up, widest)
            for row in 0..<item.count {
                let offset = row * widest + range.lowerBound
                Kernels.siluMultiply(gate + offset, up + offset, range.count, into: gate + offset)
            }
        }
    }

    private func runDown() {
        let h = configuration.hiddenSize
        forEachPart(outputs: { $0.weights.down.rows }) { item, range in
            Kernels.multiply(
                gates.pointer + item.first * widest, item.count, widest, item.weights.down, range,
                outputs.pointer + item.first * h, h)
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
