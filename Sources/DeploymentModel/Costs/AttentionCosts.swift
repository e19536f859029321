import StatePools
import TPU

/// What the layers cost on an attention device besides the fused kernel.
struct AttentionCosts: Sendable {
    private let shape: ModelShape
    private let tensorParallel: Int
    private let rates: DeviceRates
    private let linear: [DenseProduct]
    private let latent: [DenseProduct]
    private let mlp: [DenseProduct]
    private let router: DenseProduct
    private let shared: [DenseProduct]
    private let output: DenseProduct
    /// One chunk of 64 rows of one linear head.
    private let chunkTime: Double
    private let latentWorkPerPicosecond: Double
    private let keyBytes: Double
    private let stateBytes: Double
    private let samplingPasses: Double
    private let hostTime: Picoseconds

    init(_ shape: ModelShape, tensorParallel: Int, costs: CostParameters, device: DeviceParameters) {
        self.shape = shape
        self.tensorParallel = tensorParallel
        rates = DeviceRates(costs, device)
        let heads = shape.heads / tensorParallel
        let passes = costs[.exactPasses]
        linear = Self.linearProducts(shape, tensorParallel)
        latent = Self.latentProducts(shape, heads)
        let width = shape.denseIntermediate / tensorParallel
        mlp = [
            DenseProduct(inputs: shape.hidden, outputs: 2 * width), DenseProduct(inputs: width, outputs: shape.hidden),
        ]
        router = DenseProduct(inputs: shape.hidden, outputs: shape.experts.experts, weightBytes: 4, passes: passes)
        let sharedWidth = shape.experts.sharedIntermediate
        shared =
            sharedWidth == 0
            ? []
            : [
                DenseProduct(inputs: shape.hidden, outputs: 2 * sharedWidth),
                DenseProduct(inputs: sharedWidth, outputs: shape.hidden),
            ]
        output = DenseProduct(
            inputs: shape.hidden, outputs: (shape.vocabulary + tensorParallel - 1) / tensorParallel, weightBytes: 2)
        let (chunk, width128) = (Double(RankWork.chunk), Double(shape.headWidth))
        let chunkWork = 2 * (2 * chunk * chunk * width128 + 2 * chunk * width128 * width128)
        chunkTime = chunkWork * passes / costs[.linearPrefill]
        latentWorkPerPicosecond = costs[.latentPrefill]
        keyBytes = 2 * Double(Self.lanes(shape.latentWidth) + Self.lanes(shape.ropeWidth))
        stateBytes = 4 * Double(heads * shape.headWidth * shape.headWidth)
        samplingPasses = costs[.samplingPasses]
        hostTime = Picoseconds((costs[.host] * 1e9).rounded())
    }

    /// Query, key and value; gate; output.
    private static func linearProducts(_ shape: ModelShape, _ tensorParallel: Int) -> [DenseProduct] {
        let width = shape.heads * shape.headWidth / tensorParallel
        return [
            DenseProduct(inputs: shape.hidden, outputs: 3 * width), DenseProduct(inputs: shape.hidden, outputs: width),
            DenseProduct(inputs: width, outputs: shape.hidden),
        ]
    }

    /// Query down and up (or direct), latent, both absorbed halves of W_kvb (bf16, one product per head), output.
    private static func latentProducts(_ shape: ModelShape, _ heads: Int) -> [DenseProduct] {
        let query = heads * (shape.nopeWidth + shape.ropeWidth)
        let queries =
            shape.queryRank == 0
            ? [DenseProduct(inputs: shape.hidden, outputs: query)]
            : [
                DenseProduct(inputs: shape.hidden, outputs: shape.queryRank),
                DenseProduct(inputs: shape.queryRank, outputs: query),
            ]
        return queries + [
            DenseProduct(inputs: shape.hidden, outputs: shape.latentWidth + shape.ropeWidth),
            DenseProduct(inputs: shape.nopeWidth, outputs: heads * shape.latentWidth, weightBytes: 2),
            DenseProduct(inputs: shape.latentWidth, outputs: heads * shape.valueWidth, weightBytes: 2),
            DenseProduct(inputs: heads * shape.valueWidth, outputs: shape.hidden),
        ]
    }

    private static func lanes(_ width: Int) -> Int {
        (width + PoolCalculator.laneCount - 1) / PoolCalculator.laneCount * PoolCalculator.laneCount
    }

    private func products(_ products: [DenseProduct], rows: Int) -> Picoseconds {
        products.reduce(0) { $0 + rates.product($1, rows: rows) }
    }

    /// Rows of one device after a reduce-scatter within the group.
    private func share(_ rows: Int) -> Int { (rows + tensorParallel - 1) / tensorParallel }

    /// One linear layer's attention on a rank whose programs have `rows` rows.
    func linearLayer(_ work: RankWork, rows: Int) -> StepCost {
        var cost = StepCost()
        let (heads, width) = (shape.heads / tensorParallel, shape.heads / tensorParallel * shape.headWidth)
        cost[.projections] = products(linear, rows: rows)
        // Norm and residual on the device's rows; query and key norm with rotary to fp32; output norm and gate.
        cost[.norms] =
            rates.elementwise(Double(6 * share(rows) * shape.hidden)) + rates.elementwise(Double(18 * rows * width))
            + rates.elementwise(Double(8 * rows * width))
        if work.chunks > 0 {
            let states = 2 * Double(work.prompts) * stateBytes
            cost[.linearPrefill] =
                rates.operation + Picoseconds((Double(work.chunks * heads) * chunkTime).rounded())
                + rates.memory(states)
        }
        if work.decodeRows > 0 {
            cost[.linearDecode] = rates.operation + rates.memory(2 * Double(work.decodeRows) * stateBytes)
        }
        cost[.collectives] = attentionCollectives(rows)
        return cost
    }

    /// One MLA layer's attention.
    func latentLayer(_ work: RankWork, rows: Int) -> StepCost {
        var cost = StepCost()
        let heads = Double(shape.heads / tensorParallel)
        let queryWidth = shape.heads / tensorParallel * (shape.nopeWidth + shape.ropeWidth)
        cost[.projections] = products(latent, rows: rows)
        cost[.norms] =
            rates.elementwise(Double(6 * share(rows) * shape.hidden))
            + rates.elementwise(Double(4 * rows * (shape.queryRank + shape.latentWidth)))
            + rates.elementwise(Double(4 * rows * (queryWidth + shape.ropeWidth)))
        if work.prefillPairs > 0 {
            let width = Double(
                Self.lanes(shape.latentWidth) + Self.lanes(shape.ropeWidth) + Self.lanes(shape.latentWidth))
            let flops = 2 * heads * width * Double(work.prefillPairs)
            cost[.latentPrefill] = rates.operation + Picoseconds((flops / latentWorkPerPicosecond).rounded())
        }
        if work.decodeKeys > 0 {
            cost[.latentDecode] = rates.operation + rates.memory(Double(work.decodeKeys) * keyBytes)
        }
        cost[.collectives] = attentionCollectives(rows)
        return cost
    }

    /// All-gather of the rows before attention, reduce-scatter of its output.
    private func attentionCollectives(_ rows: Int) -> Picoseconds {
        2 * rates.collective(bytes: Double(2 * rows * shape.hidden), devices: tensorParallel)
    }

    /// A dense layer's MLP, split over the tensor-parallel group.
    func denseLayer(rows: Int) -> StepCost {
        var cost = StepCost()
        cost[.denseMLP] =
            products(mlp, rows: rows) + rates.elementwise(Double(6 * rows * shape.denseIntermediate / tensorParallel))
        cost[.norms] = rates.elementwise(Double(6 * share(rows) * shape.hidden))
        cost[.collectives] = attentionCollectives(rows)
        return cost
    }

    /// Norm, router and top-k before the fused kernel, on the device's share of the rows.
    func routerLayer(rows: Int) -> StepCost {
        var cost = StepCost()
        let own = share(rows)
        cost[.norms] = rates.elementwise(Double(6 * own * shape.hidden))
        // Sigmoid and bias, scores of the groups, kept groups, top-k, weights.
        let scores = Double(8 * own * shape.experts.experts)
        cost[.router] = rates.product(router, rows: own) + 5 * rates.elementwise(scores)
        return cost
    }

    /// The shared expert as an operation of its own, weights on every device.
    func sharedExpert(rows: Int) -> Picoseconds {
        let own = share(rows)
        return products(shared, rows: own)
            + (shared.isEmpty ? 0 : rates.elementwise(Double(6 * own * shape.experts.sharedIntermediate)))
    }

    /// What happens once per step: embedding, head, sampling, host.
    func once(rows: Int, samples: Int) -> StepCost {
        var cost = StepCost()
        cost[.embedding] =
            rates.elementwise(Double(4 * rows * shape.hidden))
            + rates.collective(bytes: Double(2 * rows * shape.hidden), devices: tensorParallel)
        if samples > 0 {
            let rows = RankWork.padded(samples)
            let logits = Double(4 * rows * output.outputs)
            cost[.head] = rates.elementwise(Double(6 * rows * shape.hidden)) + rates.product(output, rows: rows)
            cost[.sampling] =
                Picoseconds(samplingPasses.rounded()) * rates.elementwise(logits)
                + rates.collective(bytes: Double(4 * rows * shape.vocabulary), devices: tensorParallel)
        }
        cost[.host] = hostTime
        return cost
    }

    /// Rows to the expert devices or back.
    func exchange(bytes: Double, links: Int) -> Picoseconds { rates.transfer(bytes: bytes, links: links) }
}
