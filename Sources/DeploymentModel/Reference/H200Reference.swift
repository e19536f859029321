import Foundation
import TPU

/// Sixteen H200 in two nodes, tensor-parallel 8 within a node and pipeline-parallel 2 between them: what the published
/// ratios compare with.
///
/// Every stage runs half of the layers on half of the requests; two micro-batches fill the pipeline, so a stage is never
/// idle in steady state and the throughput is one micro-batch per stage time (the slower stage's, which has the head).
/// A stage's time is a sum of roofs: bytes from HBM, matrix work in fp8, all-reduces over NVLink, the hop to the next
/// node, and a floor per kernel. One efficiency stands for all rates and is the only fitted number.
public struct H200Reference: Sendable {
    /// GPUs of a node.
    public static let tensorParallel = 8
    /// Nodes.
    public static let stages = 2
    /// Kernels of a layer in a captured graph: norms, products with their quantisation, attention, router, grouped
    /// products, combination.
    private static let kernelsPerLayer = 15.0
    /// Bytes of activations per hidden channel and layer, which every GPU of the node holds in full: two norms with their
    /// residuals (8 each), quantisation of the rows twice (3 each), the top-8 outputs written and summed (32).
    private static let activationBytes = 54.0
    /// Tokens of one prefill micro-batch.
    private static let chunk = 8192

    private let shape: ModelShape
    private let costs: CostParameters
    private let efficiency: Double

    /// The reference for a model.
    public init(shape: ModelShape = .ling1T, costs: CostParameters = .default) {
        self.shape = shape
        self.costs = costs
        efficiency = costs[.referenceEfficiency]
    }

    /// A stage's time by what it is made of, milliseconds.
    public struct StageTime: Sendable, Equatable {
        /// Routed and shared experts.
        public var experts = 0.0
        /// Weights and products of attention, dense MLPs and head.
        public var projections = 0.0
        /// KV cache and recurrent states, or the products of attention over prompts.
        public var attention = 0.0
        /// Norms, residuals, quantisation, sums of expert outputs.
        public var activations = 0.0
        /// Gathering the logits of the whole vocabulary and choosing from them, on every GPU.
        public var sampling = 0.0
        /// All-reduces.
        public var collectives = 0.0
        /// Floor of the kernels and the host.
        public var overhead = 0.0
        /// Sending rows to the next stage; 0 where it is hidden.
        public var hop = 0.0
        /// All of it.
        public var total: Double {
            experts + projections + attention + activations + sampling + collectives + overhead + hop
        }
    }

    private var layersPerStage: Double { Double(shape.layers) / Double(Self.stages) }
    private var expertLayersPerStage: Double { Double(shape.expertLayers) / Double(Self.stages) }
    private var group: Double { Double(Self.tensorParallel) }

    /// Milliseconds for `bytes` and `work` FLOP, whichever is longer.
    private func roof(bytes: Double, work: Double, teraflops: Double) -> Double {
        max(bytes / (costs[.referenceMemoryRate] * 1e9), work / (teraflops * 1e9)) / efficiency
    }

    /// One stage on `rows` rows of which `samples` are sampled.
    private func stage(rows: Double, samples: Double, experts activeShare: Double, attention: Double) -> StageTime {
        var time = StageTime()
        let e = shape.experts
        let float8 = costs[.referenceFloat8]
        let expertBytes = Double(e.expertParameters) / group
        time.experts =
            expertLayersPerStage
            * (roof(
                bytes: activeShare * Double(e.experts) * expertBytes,
                work: 2 * rows * Double(e.topK) * expertBytes, teraflops: float8)
                + roof(
                    bytes: Double(3 * e.hidden * e.sharedIntermediate) / group,
                    work: 2 * rows * Double(3 * e.hidden * e.sharedIntermediate) / group, teraflops: float8))
        let dense = denseParametersPerStage / group
        let head = Double(shape.vocabulary * shape.hidden) / group
        time.projections =
            roof(bytes: dense, work: 2 * rows * dense, teraflops: float8)
            + roof(bytes: 2 * head, work: 2 * samples * head, teraflops: costs[.referenceBFloat16])
        time.attention = attention
        let memory = costs[.referenceMemoryRate] * 1e9 * efficiency
        time.activations = layersPerStage * Self.activationBytes * rows * Double(shape.hidden) / memory
        let logits = samples * Double(shape.vocabulary)
        time.sampling =
            costs[.samplingPasses] * 4 * logits / memory
            + 2 * (group - 1) / group * logits / (costs[.referenceLink] * 1e6 * efficiency)
        let rowBytes = Double(2 * shape.hidden)
        let reduced = 2 * (group - 1) / group * rows * rowBytes / (costs[.referenceLink] * 1e6 * efficiency)
        time.collectives = 2 * layersPerStage * (costs[.referenceReduce] * 1e-3 + reduced)
        time.overhead =
            costs[.referenceHost] + layersPerStage * Self.kernelsPerLayer * costs[.referenceOperation] * 1e-3
        // Every GPU sends its share of the rows and of the residual.
        time.hop = 2 * rows * rowBytes / group / (costs[.referenceNetwork] / 8 * 1e6 * efficiency)
        return time
    }

    /// Attention, dense MLPs and routers of one stage, parameters.
    private var denseParametersPerStage: Double {
        let width = shape.heads * shape.headWidth
        let linear = 5 * shape.hidden * width
        let query = shape.heads * (shape.nopeWidth + shape.ropeWidth)
        let latent =
            (shape.queryRank == 0 ? shape.hidden * query : shape.queryRank * (shape.hidden + query))
            + shape.hidden * (shape.latentWidth + shape.ropeWidth)
            + shape.heads * (shape.nopeWidth + shape.valueWidth) * shape.latentWidth
            + shape.heads * shape.valueWidth * shape.hidden
        let mlp = 3 * shape.hidden * shape.denseIntermediate
        let all = shape.linearLayers * linear + shape.latentLayers * latent + shape.denseLayers * mlp
        return Double(all) / Double(Self.stages)
    }

    /// A decode step of one stage with `concurrency` requests in both micro-batches.
    public func decodeStage(concurrency: Int, context: Int) -> StageTime {
        let rows = max(1, Double(concurrency) / Double(Self.stages))
        let share = Double(shape.experts.topK) / Double(shape.experts.experts)
        let active = 1 - exp(rows * log1p(-min(share, 0.999_999)))
        let latentLayers = Double(shape.latentLayers) / Double(Self.stages)
        let linearLayers = Double(shape.linearLayers) / Double(Self.stages)
        // Every GPU of a node reads the whole latent: it is shared by all heads.
        let keys = latentLayers * rows * Double(context * 2 * (shape.latentWidth + shape.ropeWidth))
        let states = linearLayers * rows * 2 * 4 * Double(shape.heads * shape.headWidth * shape.headWidth) / group
        return stage(
            rows: rows, samples: rows, experts: active, attention: roof(bytes: keys + states, work: 0, teraflops: 1))
    }

    /// Decoded tokens per second with `concurrency` requests of `context` tokens.
    public func decodeThroughput(concurrency: Int, context: Int) -> Double {
        Double(concurrency) / Double(Self.stages) / decodeStage(concurrency: concurrency, context: context).total * 1e3
    }

    /// A prefill step of one stage in the middle of prompts of `prompt` tokens.
    public func prefillStage(prompt: Int) -> StageTime {
        let rows = Double(Self.chunk)
        let pairs = rows * Double(prompt) / 2
        let latentLayers = Double(shape.latentLayers) / Double(Self.stages)
        let linearLayers = Double(shape.linearLayers) / Double(Self.stages)
        let heads = Double(shape.heads) / group
        let scores = 2 * Double(shape.nopeWidth + shape.ropeWidth + shape.valueWidth)
        let chunkWork = 2 * (2 * 64 * Double(shape.headWidth) + 2 * Double(shape.headWidth * shape.headWidth))
        let work = latentLayers * heads * pairs * scores + linearLayers * heads * rows * chunkWork
        return stage(
            rows: rows, samples: rows / Double(max(1, prompt)), experts: 1,
            attention: roof(bytes: 0, work: work, teraflops: costs[.referenceBFloat16]))
    }

    /// Prompt tokens per second.
    public func prefillThroughput(prompt: Int) -> Double {
        Double(Self.chunk) / prefillStage(prompt: prompt).total * 1e3
    }

    /// Requests of `tokens` tokens whose state the HBM holds beside the weights of a stage, at the usable share that the
    /// TPU is given.
    public func capacity(tokens: Int) -> Int {
        let e = shape.experts
        let weights =
            (expertLayersPerStage * Double((e.experts * e.intermediate + e.sharedIntermediate) * 3 * e.hidden)
                + denseParametersPerStage + 2 * Double(shape.vocabulary * shape.hidden)) / group
        let left = costs[.referenceMemory] * 1e9 * costs[.memoryShare] - weights
        let states =
            Double(shape.linearLayers / Self.stages * 4 * shape.heads * shape.headWidth * shape.headWidth) / group
        let keys = Double(shape.latentLayers / Self.stages * 2 * (shape.latentWidth + shape.ropeWidth) * tokens)
        return max(0, Int(left / (states + keys)))
    }
}
