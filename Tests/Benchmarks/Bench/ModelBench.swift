import Checkpoint
import Foundation
import HybridModel
import Numerics
import Sampling

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
        /// Bytes per second over what memory delivers to readers.
        let partOfBandwidth: Double
    }

    struct Prefill: Encodable {
        let tokens: Int
        let tokensPerSecond: Double
        let milliseconds: Double
        let flops: Double
        /// Floating point operations per second over what the multiply-add units do.
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
    private var random = RandomWords(seed: SyntheticCheckpoint.seed)

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

    func run(_ weights: String, _ peaks: inout Peaks, _ team: ThreadTeam, _ progress: Progress) throws -> ModelSpeed {
        progress("\(weights): prefill of \(Self.promptTokens) tokens")
        try peaks.measure(team)
        let prefill = try prefillTimes()
        var decodes: [(Int, Samples, Double, Int)] = []
        for batch in [1, 8, 32] {
            progress("\(weights): decode with \(batch) rows")
            let (times, experts, context) = try decodeTimes(batch: batch)
            decodes.append((batch, times, experts, context))
        }
        try peaks.measure(team)
        let flops = workload.prefillFlops(tokens: Self.promptTokens)
        let bytes = checkpoint.tensors.values.reduce(0) { $0 + $1.entry.byteCount }
        return ModelSpeed(
            weights: weights, checkpointBytes: bytes,
            decode: decodes.map { decode($0.0, $0.1, $0.2, $0.3, peaks) },
            prefill: ModelSpeed.Prefill(
                tokens: Self.promptTokens, tokensPerSecond: Double(Self.promptTokens) / prefill.median,
                milliseconds: 1000 * prefill.median, flops: flops,
                partOfPeak: flops / prefill.median / peaks.flopsPerSecond))
    }

    private func decode(
        _ batch: Int, _ times: Samples, _ experts: Double, _ context: Int, _ peaks: Peaks
    ) -> ModelSpeed.Decode {
        let bytes = workload.decodeBytes(rows: batch, context: context, distinctExperts: experts)
        return ModelSpeed.Decode(
            batch: batch, steps: times.values.count, tokensPerSecond: Double(batch) / times.median,
            stepMilliseconds: 1000 * times.median, bytesPerStep: bytes, distinctExperts: experts,
            partOfBandwidth: bytes / times.median / peaks.bytesPerSecond)
    }

    private func tokens(_ count: Int) -> [UInt32] {
        (0..<count).map { _ in UInt32(random.next() % UInt64(configuration.vocabularySize)) }
    }

    /// Seconds per prompt; the first run, which brings the weights in, is not counted.
    private func prefillTimes() throws -> Samples {
        let pages = Array(0..<Self.contextPages)
        let state = try StateMemory(configuration: configuration, slotCount: 1, pageCount: pages.count)
        var samples = Samples()
        let end = seconds() + 8
        var run = 0
        while run < 4 || (run < 12 && seconds() < end) {
            let prompt = Segment(
                slot: 0, pages: pages, position: 0, tokens: tokens(Self.promptTokens), isPrefill: true)
            let started = seconds()
            forward.lastLogits([prompt], state: state, into: logits)
            if run > 0 { samples.values.append(seconds() - started) }
            run += 1
        }
        return samples
    }

    /// Seconds per step of `batch` rows with 128 tokens of context each, the mean number of distinct experts, and the
    /// mean context. Every step samples greedily, but goes on with seeded random tokens, because the argmax of random
    /// weights falls into a loop that would route every row alike.
    private func decodeTimes(batch: Int) throws -> (Samples, Double, Int) {
        let context = 128
        let state = try StateMemory(
            configuration: configuration, slotCount: batch, pageCount: batch * Self.contextPages)
        func pages(_ slot: Int) -> [Int] { Array(slot * Self.contextPages..<(slot + 1) * Self.contextPages) }
        for slot in 0..<batch {
            let prompt = Segment(
                slot: slot, pages: pages(slot), position: 0, tokens: tokens(context), isPrefill: true)
            forward.lastLogits([prompt], state: state, into: logits)
        }
        let experts = DistinctExperts(configuration)
        forward.onRouting = { layer, routed in experts.add(layer, routed) }
        defer { forward.onRouting = nil }
        var samples = Samples()
        let end = seconds() + 5
        var step = 0
        while step < 20 || (step < 400 && seconds() < end) {
            let rows = (0..<batch).map { slot in
                Segment(
                    slot: slot, pages: pages(slot), position: context + step, tokens: tokens(1), isPrefill: false)
            }
            if step == 4 { experts.reset() }
            let started = seconds()
            forward.lastLogits(rows, state: state, into: logits)
            for row in 0..<batch { try sample(row) }
            if step >= 4 { samples.values.append(seconds() - started) }
            step += 1
        }
        return (samples, Double(experts.count) / Double(samples.values.count), context + step / 2)
    }

    private func sample(_ row: Int) throws {
        let vocabulary = configuration.vocabularySize
        let buffer = UnsafeMutableBufferPointer(start: logits + row * vocabulary, count: vocabulary)
        _ = try sampler.sample(buffer, SamplingParameters())
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
