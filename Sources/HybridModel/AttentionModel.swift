import Checkpoint
import Numerics

/// The attention service's part of the model: embedding, both attention kinds, norms, dense MLPs and the router.
///
/// A step is `begin`, then `runLayer` for every layer in order, with `addExperts` after each that returns rows. One
/// step at a time; all scratch is allocated up front for `maximumRows` rows.
public final class AttentionModel {
    /// What `config.json` says.
    public let configuration: ModelConfiguration
    /// Rows (tokens) one step may have.
    public let maximumRows: Int
    /// Bytes of the mapped tensors.
    public let weightByteCount: Int

    /// What each layer keeps per request, and its place among the layers that keep the same.
    public let layerPlaces: [LayerPlace]

    /// Bytes of everything a step writes.
    public var scratchByteCount: Int { scratch.byteCount }

    let team: ThreadTeam
    let rotary: RotaryTable
    let scratch: AttentionScratch
    private let tensors: TensorSet
    private let embedding: WeightMatrix
    private let layers: [LayerWeights]
    private let router: Router
    private(set) var segments: [Segment] = []
    private(set) var rowCount = 0
    /// What threads share out of the attention of an MLA layer.
    private(set) var attentionParts: [AttentionPart] = []
    private var state: StateMemory?

    /// Maps and checks the tensors this part owns.
    ///
    /// - Throws: `CheckpointError` that names the tensor, or what of the configuration cannot be computed.
    public init(checkpoint: Checkpoint, team: ThreadTeam, maximumRows: Int) throws(CheckpointError) {
        let c = checkpoint.configuration
        configuration = c
        self.maximumRows = maximumRows
        self.team = team
        let tensors = try TensorSet(checkpoint) { name in Self.owns(name, layerCount: c.layerCount) }
        self.tensors = tensors
        weightByteCount = tensors.byteCount
        embedding = try tensors.matrix(
            "model.word_embeddings.weight", rows: c.vocabularySize, columns: c.hiddenSize)
        var layers: [LayerWeights] = []
        for layer in 0..<c.layerCount { layers.append(try LayerWeights(tensors, layer: layer, c)) }
        self.layers = layers
        layerPlaces = layers.map { layer in
            switch layer.attention {
            case .linear(_, let index): .linear(index)
            case .latent(_, let index): .latent(index)
            }
        }
        router = Router(c)
        rotary = RotaryTable(c)
        scratch = AttentionScratch(c, maximumRows: maximumRows, routerScratch: router.scratchCount)
    }

    static func owns(_ name: String, layerCount: Int) -> Bool {
        guard name != "lm_head.weight", name != "model.norm.weight" else { return false }
        let parts = name.split(separator: ".")
        if parts.count > 2, parts[1] == "layers", let layer = Int(parts[2]), layer >= layerCount { return false }
        return !name.contains(".mlp.experts.") && !name.contains(".mlp.shared_experts.")
    }

    /// Starts a step: embeds all tokens of `segments` in order and clears the state of those that start.
    public func begin(_ segments: [Segment], state: StateMemory) {
        self.segments = segments
        self.state = state
        rowCount = 0
        attentionParts.removeAll(keepingCapacity: true)
        let threadsPerSegment = (team.threadCount + segments.count - 1) / max(1, segments.count)
        let mostHeads = (configuration.headCount + threadsPerSegment - 1) / max(1, threadsPerSegment)
        for (index, segment) in segments.enumerated() {
            AttentionPart.append(
                segment, index, row: rowCount, headCount: configuration.headCount, mostHeads: mostHeads,
                to: &attentionParts)
            if segment.position == 0 { state.clear(slot: segment.slot) }
            for (offset, token) in segment.tokens.enumerated() {
                let row = rowCount + offset
                Kernels.copyRow(Int(token), of: embedding, into: hidden(row))
                rotary.fill(
                    position: segment.position + offset, cosine: scratch.cosine.pointer + row * rotaryHalf,
                    sine: scratch.sine.pointer + row * rotaryHalf)
            }
            rowCount += segment.tokens.count
        }
    }

    /// Hidden rows [rowCount, h] of the step, before the final norm.
    public var hiddenRows: UnsafePointer<Float> { UnsafePointer(scratch.hidden.pointer) }

    /// Rows of the current step.
    public var stepRowCount: Int { rowCount }

    /// Index of the last row of each segment.
    public var lastRows: [Int] {
        var end = 0
        return segments.map { segment in
            end += segment.tokens.count
            return end - 1
        }
    }

    /// Attention and what follows it. Returns the rows the experts must see, or nil when the layer is complete.
    public func runLayer(_ index: Int) -> RoutedRows? {
        guard let state, rowCount > 0 else { return nil }
        let layer = layers[index]
        normalize(layer.inputNorm)
        switch layer.attention {
        case .linear(let weights, let linearIndex): linearAttention(weights, linearIndex, state)
        case .latent(let weights, let latentIndex): latentAttention(weights, latentIndex, state)
        }
        addProjection()
        normalize(layer.mixerNorm)
        switch layer.mixer {
        case .dense(let weights):
            dense(weights)
            addProjection()
            return nil
        case .routed(let gate, let bias):
            return route(gate, bias)
        }
    }

    /// Adds the experts' combined output [rowCount, h] to the residual stream.
    public func addExperts(_ output: UnsafePointer<Float>) {
        let width = configuration.hiddenSize
        forEachRow { row in Kernels.add(hidden(row), output + row * width, width) }
    }

    var rotaryHalf: Int { configuration.ropeWidth / 2 }

    func hidden(_ row: Int) -> UnsafeMutablePointer<Float> {
        scratch.hidden.pointer + row * configuration.hiddenSize
    }

    /// Calls `body` for each row, shared out in runs of rows.
    func forEachRow(_ body: (Int) -> Void) {
        let run = 16
        let count = rowCount
        team.run((count + run - 1) / run) { part in
            for row in part * run..<min(count, (part + 1) * run) { body(row) }
        }
    }

    func project(
        _ x: UnsafePointer<Float>, _ weights: WeightMatrix, into y: UnsafeMutablePointer<Float>
    ) {
        Kernels.multiply(
            x, rowCount: rowCount, rowStride: weights.columns, by: weights, into: y, outputStride: weights.rows,
            team: team)
    }

    private func normalize(_ weight: UnsafePointer<Float>) {
        let width = configuration.hiddenSize
        forEachRow { row in
            Kernels.rmsNorm(
                hidden(row), weight: weight, epsilon: configuration.normEpsilon, width,
                into: scratch.normed.pointer + row * width)
        }
    }

    private func addProjection() {
        addExperts(scratch.projected.pointer)
    }

    private func dense(_ weights: FeedForwardWeights) {
        let (gate, up) = (scratch.larger.pointer, scratch.smaller.pointer)
        project(scratch.normed.pointer, weights.gate, into: gate)
        project(scratch.normed.pointer, weights.up, into: up)
        let width = configuration.intermediateSize
        forEachRow { row in
            Kernels.siluMultiply(gate + row * width, up + row * width, width, into: gate + row * width)
        }
        project(gate, weights.down, into: scratch.projected.pointer)
    }

    private func route(_ gate: WeightMatrix, _ bias: UnsafePointer<Float>?) -> RoutedRows {
        let logits = scratch.routerLogits.pointer
        project(scratch.normed.pointer, gate, into: logits)
        for row in 0..<rowCount {
            router.route(
                logits: logits + row * router.expertCount, bias: bias, ids: scratch.expertIDs + row * router.topK,
                weights: scratch.expertWeights.pointer + row * router.topK, scratch: scratch.router.pointer)
        }
        return RoutedRows(
            rowCount: rowCount, rows: scratch.normed.pointer, expertIDs: scratch.expertIDs,
            weights: scratch.expertWeights.pointer, logits: logits)
    }
}
