import Checkpoint
import Numerics

/// The whole model in one process: the three parts composed as the services compose them, without the wire.
public final class ReferenceForward {
    /// Called before every layer and after the final norm with the residual stream [rows, h].
    public var onHidden: ((_ layer: Int, _ rows: UnsafePointer<Float>, _ rowCount: Int) -> Void)?
    /// Called with the routing of every MoE layer.
    public var onRouting: ((_ layer: Int, _ routed: RoutedRows) -> Void)?

    /// What `config.json` says.
    public let configuration: ModelConfiguration
    private let attention: AttentionModel
    private let experts: [ExpertsModel]
    private let head: HeadModel
    private let pairOutput: FloatBuffer
    private let sharedOutput: FloatBuffer
    private let combined: FloatBuffer
    private let lastHidden: FloatBuffer
    private let rowIDs: [Int32]
    private let pairRows: [Int32]

    /// Loads all parts, the experts as `shards` shards.
    ///
    /// - Throws: `CheckpointError` that names the tensor.
    public init(checkpoint: Checkpoint, team: ThreadTeam, maximumRows: Int, shards: Int = 1) throws(CheckpointError) {
        configuration = checkpoint.configuration
        attention = try AttentionModel(checkpoint: checkpoint, team: team, maximumRows: maximumRows)
        head = try HeadModel(checkpoint: checkpoint, team: team, maximumRows: maximumRows)
        var experts: [ExpertsModel] = []
        for index in 0..<shards {
            experts.append(
                try ExpertsModel(
                    checkpoint: checkpoint, shard: ExpertShard(index: index, count: shards), team: team,
                    maximumRows: maximumRows))
        }
        self.experts = experts
        let h = configuration.hiddenSize
        pairOutput = FloatBuffer(maximumRows * configuration.expertsPerToken * h)
        sharedOutput = FloatBuffer(maximumRows * h)
        combined = FloatBuffer(maximumRows * h)
        lastHidden = FloatBuffer(maximumRows * h)
        let topK = configuration.expertsPerToken
        rowIDs = (0..<maximumRows).map(Int32.init)
        pairRows = (0..<maximumRows * topK).map { Int32($0 / topK) }
    }

    /// Runs one step and returns the logits [rows, V] of all its rows, in the order of the segments.
    public func logits(_ segments: [Segment], state: StateMemory) -> [Float] {
        runLayers(segments, state)
        let rows = attention.stepRowCount
        onHidden?(configuration.layerCount, head.normalize(attention.hiddenRows, rowCount: rows), rows)
        return [Float](unsafeUninitializedCapacity: rows * configuration.vocabularySize) { buffer, count in
            guard let base = buffer.baseAddress else { return }
            head.logits(attention.hiddenRows, rowCount: rows, into: base)
            count = rows * configuration.vocabularySize
        }
    }

    /// Runs one step as the services do: `out` gets the logits [segments, V] of the last row of each segment alone.
    public func lastLogits(_ segments: [Segment], state: StateMemory, into out: UnsafeMutablePointer<Float>) {
        runLayers(segments, state)
        let h = configuration.hiddenSize
        for (index, row) in attention.lastRows.enumerated() {
            (lastHidden.pointer + index * h).update(from: attention.hiddenRows + row * h, count: h)
        }
        head.logits(lastHidden.pointer, rowCount: segments.count, into: out)
    }

    private func runLayers(_ segments: [Segment], _ state: StateMemory) {
        attention.begin(segments, state: state)
        for layer in 0..<configuration.layerCount {
            onHidden?(layer, attention.hiddenRows, attention.stepRowCount)
            guard let routed = attention.runLayer(layer) else { continue }
            onRouting?(layer, routed)
            runExperts(layer, routed)
            attention.addExperts(combined.pointer)
        }
    }

    /// Logits [tokens, V] of a prompt from position 0, prefilled in chunks of `chunk` (a multiple of 64).
    public func prefill(
        _ tokens: [UInt32], slot: Int, pages: [Int], chunk: Int, state: StateMemory
    ) -> [Float] {
        var result: [Float] = []
        var position = 0
        while position < tokens.count {
            let part = Array(tokens[position..<min(tokens.count, position + chunk)])
            result += logits(
                [Segment(slot: slot, pages: pages, position: position, tokens: part)], state: state)
            position += part.count
        }
        return result
    }

    private func runExperts(_ layer: Int, _ routed: RoutedRows) {
        let pairs = routed.rowCount * configuration.expertsPerToken
        if experts.count == 1 {
            experts[0].forward(
                layer: layer, rows: routed.rows, pairRow: pairRows, pairExpert: routed.expertIDs, pairCount: pairs,
                sharedRow: rowIDs, sharedCount: routed.rowCount, pairOutput: pairOutput.pointer,
                sharedOutput: sharedOutput.pointer)
        } else {
            for index in experts.indices { runShard(index, layer, routed) }
        }
        experts[0].combine(
            rowCount: routed.rowCount, topK: configuration.expertsPerToken, pairOutput: pairOutput.pointer,
            weights: routed.weights,
            sharedOutput: sharedOutput.pointer, into: combined.pointer)
    }

    private func runShard(_ index: Int, _ layer: Int, _ routed: RoutedRows) {
        let (topK, h) = (configuration.expertsPerToken, configuration.hiddenSize)
        let model = experts[index]
        let own = (0..<routed.rowCount * topK).filter { model.experts.contains(Int(routed.expertIDs[$0])) }
        let shared = rowIDs[..<routed.rowCount].filter { Int($0) % experts.count == index }
        let outputs = FloatBuffer(own.count * h)
        let sharedOutputs = FloatBuffer(shared.count * h)
        model.forward(
            layer: layer, rows: routed.rows, pairRow: own.map { pairRows[$0] },
            pairExpert: own.map { routed.expertIDs[$0] }, pairCount: own.count, sharedRow: shared,
            sharedCount: shared.count, pairOutput: outputs.pointer, sharedOutput: sharedOutputs.pointer)
        for (i, pair) in own.enumerated() {
            (pairOutput.pointer + pair * h).update(from: outputs.pointer + i * h, count: h)
        }
        for (i, row) in shared.enumerated() {
            (sharedOutput.pointer + Int(row) * h).update(from: sharedOutputs.pointer + i * h, count: h)
        }
    }
}
