import Checkpoint
import Foundation
import HybridModel
import Numerics
import RandomNumbers
import Sampling
import Serving

/// Decode and prefill in this process, against the two roofs.
struct ModelSpeed: Encodable {
    struct Decode: Encodable {
        let batch: Int
        let steps: Int
        let tokensPerSecond: Double
        let stepMilliseconds: Double
        /// Bytes a step touches, with the experts that were actually routed to.
        let bytesPerStep: Double
        /// Distinct (layer, expert) per step.
        let distinctExperts: Double
        /// Median bytes per second over the median of what memory delivered to readers in between.
        let partOfBandwidth: Double
    }

    struct Prefill: Encodable {
        let tokens: Int
        let tokensPerSecond: Double
        let milliseconds: Double
        let flops: Double
        /// Median operations per second over the median of what the multiply-add units did in between.
        let partOfPeak: Double
    }

    let weights: String
    let checkpointBytes: Int
    let decode: [Decode]
    let prefill: Prefill
}

/// Runs the single-process forward on a checkpoint.
final class ModelBench {
    private let checkpoint: Checkpoint
    private let workload: Workload
    private let forward: ReferenceForward
    private let configuration: ModelConfiguration
    private let logits: UnsafeMutablePointer<Float>
    private var sampler = TokenSampler()
    private var random = SplitMix64(seed: SyntheticCheckpoint.seed)

    private static let promptTokens = 512
    private static let contextPages = 10

    init(_ checkpoint: Checkpoint, _ team: ThreadTeam) throws {
        self.checkpoint = checkpoint
        workload = Workload(checkpoint)
        configuration = checkpoint.configuration
        forward = try ReferenceForward(checkpoint: checkpoint, team: team, maximumRows: Self.promptTokens)
        logits = .allocate(capacity: 64 * configuration.vocabularySize)
    }

    deinit { logits.deallocate() }

    func run(_ weights: String, _ roofs: Roofs, _ progress: Progress) throws -> ModelSpeed {
        progress("\(weights): prefill of \(Self.promptTokens) tokens")
        let prefill = try prefill(roofs)
        var decodes: [ModelSpeed.Decode] = []
        for batch in [1, 8, 32] {
            progress("\(weights): decode with \(batch) rows")
            decodes.append(try decode(batch: batch, roofs))
        }
        let bytes = checkpoint.tensors.values.reduce(0) { $0 + $1.entry.byteCount }
        return ModelSpeed(weights: weights, checkpointBytes: bytes, decode: decodes, prefill: prefill)
    }

    private func tokens(_ count: Int) -> [UInt32] {
        (0..<count).map { _ in UInt32(random.next() % UInt64(configuration.vocabularySize)) }
    }

    /// Prompts from position 0; the first run is not counted.
    private func prefill(_ roofs: Roofs) throws -> ModelSpeed.Prefill {
        let pages = Array(0..<Self.contextPages)
        let state = try StateMemory(configuration: configuration, slotCount: 1, pageCount: pages.count)
        var (times, peak) = (Samples(), Samples())
        let end = seconds() + 6
        var run = 0
        while run < 4 || (run < 16 && seconds() < end) {
            let prompt = Segment(
                slot: 0, pages: pages, position: 0, tokens: tokens(Self.promptTokens))
            peak.values.append(roofs.computeOnce())
            let started = seconds()
            forward.lastLogits([prompt], state: state, into: logits)
            if run > 0 { times.values.append(seconds() - started) }
            run += 1
        }
        let flops = workload.prefillFlops(tokens: Self.promptTokens)
        return ModelSpeed.Prefill(
            tokens: Self.promptTokens, tokensPerSecond: Double(Self.promptTokens) / times.median,
            milliseconds: 1000 * times.median, flops: flops, partOfPeak: flops / times.median / peak.median)
    }

    /// Steps of `batch` rows with 128 tokens of context each. Every step samples greedily, but goes on with seeded random
    /// tokens, because the argmax of random weights falls into a loop that would route every row alike.
    private func decode(batch: Int, _ roofs: Roofs) throws -> ModelSpeed.Decode {
        let context = 128
        let state = try StateMemory(
            configuration: configuration, slotCount: batch, pageCount: batch * Self.contextPages)
        func pages(_ slot: Int) -> [Int] { Array(slot * Self.contextPages..<(slot + 1) * Self.contextPages) }
        for slot in 0..<batch {
            let prompt = Segment(
                slot: slot, pages: pages(slot), position: 0, tokens: tokens(context))
            forward.lastLogits([prompt], state: state, into: logits)
        }
        let experts = DistinctExperts(configuration)
        forward.onRouting = { layer, routed in experts.add(layer, routed) }
        defer { forward.onRouting = nil }
        var (times, bandwidth) = (Samples(), Samples())
        let end = seconds() + 5
        var step = 0
        while step < 20 || (step < 400 && seconds() < end) {
            if step % 10 == 0 { bandwidth.values.append(roofs.readOnce()) }
            let rows = (0..<batch).map { slot in
                Segment(
                    slot: slot, pages: pages(slot), position: context + step, tokens: tokens(1))
            }
            if step == 4 { experts.reset() }
            let started = seconds()
            forward.lastLogits(rows, state: state, into: logits)
            for row in 0..<batch { try sample(row) }
            if step >= 4 { times.values.append(seconds() - started) }
            step += 1
        }
        let distinct = Double(experts.count) / Double(times.values.count)
        let bytes = workload.decodeBytes(rows: batch, context: context + step / 2, distinctExperts: distinct)
        return ModelSpeed.Decode(
            batch: batch, steps: times.values.count, tokensPerSecond: Double(batch) / times.median,
            stepMilliseconds: 1000 * times.median, bytesPerStep: bytes, distinctExperts: distinct,
            partOfBandwidth: bytes / times.median / bandwidth.median)
    }

    private func sample(_ row: Int) throws {
        let vocabulary = configuration.vocabularySize
        let buffer = UnsafeMutableBufferPointer(start: logits + row * vocabulary, count: vocabulary)
        _ = try sampler.sample(buffer, SampleRow())
    }
}

/// Counts the distinct (layer, expert) that steps route to.
private final class DistinctExperts {
    private let topK: Int
    private var marks: [Bool]
    private(set) var count = 0

    init(_ configuration: ModelConfiguration) {
        topK = configuration.expertsPerToken
        marks = [Bool](repeating: false, count: configuration.expertCount)
    }

    func reset() { count = 0 }

    func add(_ layer: Int, _ routed: RoutedRows) {
        for index in marks.indices { marks[index] = false }
        for pair in 0..<routed.rowCount * topK where !marks[Int(routed.expertIDs[pair])] {
            marks[Int(routed.expertIDs[pair])] = true
            count += 1
        }
    }
}
