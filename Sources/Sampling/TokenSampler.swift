import Numerics
import Serving

/// Logits that no token can be chosen from.
public enum SamplingError: Error, Sendable, Equatable, CustomStringConvertible {
    /// There are none, or what is there are no numbers: the model's fault.
    case brokenLogits(String)
    /// The request leaves no token to choose.
    case everyTokenIsBanned

    /// One sentence.
    public var description: String {
        switch self {
        case .brokenLogits(let sentence): sentence
        case .everyTokenIsBanned: "every token is banned"
        }
    }
}

/// Chooses tokens row by row. Order of operations: logprobs of the raw logits, biases and bans, penalties, temperature,
/// top-k, top-p, min-p, draw. Keeps its scratch between rows.
public struct TokenSampler {
    private var candidates: [Candidate] = []
    private var weights: [Float] = []

    /// A sampler without scratch yet.
    public init() {}

    /// Samples one row, [vocabulary]. `logits` is changed by biases, bans and penalties. Throws when logits are not numbers or no token
    /// is left to choose.
    public mutating func sample(
        _ logits: UnsafeMutableBufferPointer<Float>, _ row: SampleRow
    ) throws(SamplingError) -> Token {
        let normalizer = try logNormalizer(logits)
        let top = likeliest(logits, row.topLogprobs).map {
            Token.Alternative(id: $0.id, logprob: Float(Double($0.logit) - normalizer))
        }
        let raw = row.changesLogits ? Array(logits) : []
        if row.changesLogits { try adjust(logits, row) }
        if row.sampling.hasPenalties { penalize(logits, row) }
        let id = row.sampling.temperature == 0 ? greedy(logits) : draw(logits, row)
        let logit = raw.isEmpty ? logits[Int(id)] : raw[Int(id)]
        return Token(id: id, logprob: Float(Double(logit) - normalizer), top: top)
    }

    /// log Σ e^logit, summed in float64 in a fixed order.
    private mutating func logNormalizer(_ logits: UnsafeMutableBufferPointer<Float>) throws(SamplingError) -> Double {
        guard let base = logits.baseAddress else { throw .brokenLogits("there are no logits") }
        let highest = Kernels.maximum(base, logits.count)
        guard !highest.isNaN else {
            throw .brokenLogits("the model produced a logit that is not a number")
        }
        guard highest.isFinite else { throw .brokenLogits("the model produced no finite logit") }
        let sum = exponentialSum(base, logits.count, highest: highest, temperature: 1)
        return Double(highest) + Kernels.logarithm(sum)
    }

    /// Σ e^((x - highest) / temperature); leaves the terms in `weights`.
    private mutating func exponentialSum(
        _ x: UnsafePointer<Float>, _ count: Int, highest: Float, temperature: Float
    ) -> Double {
        if weights.count < count { weights = [Float](repeating: 0, count: count) }
        return weights.withUnsafeMutableBufferPointer { weights in
            guard let out = weights.baseAddress else { return 0 }
            Kernels.exponentials(x, count, shift: highest, divisor: temperature, into: out)
            return Kernels.sum(out, count)
        }
    }

    private func greedy(_ logits: UnsafeMutableBufferPointer<Float>) -> UInt32 {
        guard let base = logits.baseAddress else { return 0 }
        let highest = Kernels.maximum(base, logits.count)
        let index = Kernels.firstIndex(of: highest, in: base, logits.count)
        return UInt32(index < logits.count ? index : 0)
    }

    /// The `count` highest logits, best first, by keeping a sorted short list.
    private func likeliest(
        _ logits: UnsafeMutableBufferPointer<Float>, _ count: Int
    ) -> [(id: UInt32, logit: Float)] {
        var best: [(id: UInt32, logit: Float)] = []
        guard count > 0 else { return best }
        best.reserveCapacity(count + 1)
        for (id, logit) in logits.enumerated() {
            guard best.count < count || logit > (best.last?.logit ?? -.infinity) else { continue }
            let place = best.firstIndex { logit > $0.logit } ?? best.count
            best.insert((UInt32(id), logit), at: place)
            if best.count > count { best.removeLast() }
        }
        return best
    }

    private func adjust(_ logits: UnsafeMutableBufferPointer<Float>, _ row: SampleRow) throws(SamplingError) {
        for token in row.sampling.logitBias where Int(token.id) < logits.count { logits[Int(token.id)] += token.bias }
        for id in row.banned where Int(id) < logits.count { logits[Int(id)] = -.infinity }
        guard row.banned.isEmpty || logits.contains(where: { $0 > -.infinity }) else { throw .everyTokenIsBanned }
    }

    private func penalize(_ logits: UnsafeMutableBufferPointer<Float>, _ row: SampleRow) {
        let sampling = row.sampling
        for id in Set(row.history) where Int(id) < logits.count {
            let logit = logits[Int(id)]
            logits[Int(id)] = logit > 0 ? logit / sampling.repetitionPenalty : logit * sampling.repetitionPenalty
        }
        var counts: [UInt32: Int] = [:]
        for id in row.history.dropFirst(row.promptCount) { counts[id, default: 0] += 1 }
        for (id, count) in counts where Int(id) < logits.count {
            logits[Int(id)] -= sampling.presencePenalty + sampling.frequencyPenalty * Float(count)
        }
    }

    private mutating func draw(_ logits: UnsafeMutableBufferPointer<Float>, _ row: SampleRow) -> UInt32 {
        let sampling = row.sampling
        guard let base = logits.baseAddress else { return 0 }
        let highest = Kernels.maximum(base, logits.count)
        // penalties may leave no finite logit, then every choice is as good as the first
        guard highest.isFinite else { return 0 }
        let total = exponentialSum(base, logits.count, highest: highest, temperature: sampling.temperature)
        let uniform = CounterRandom.uniform(seed: sampling.seed, position: row.position)
        if sampling.topK > 0 || sampling.topP < 1 || sampling.minP > 0 {
            return drawFiltered(logits, sampling, total, uniform)
        }
        var left = uniform * total
        var last = 0
        for id in 0..<logits.count where weights[id] > 0 {
            left -= Double(weights[id])
            if left < 0 { return UInt32(id) }
            last = id
        }
        return UInt32(last)
    }

    /// Puts the likeliest candidates in order, as many as the filters can keep, and draws among those they keep.
    private mutating func drawFiltered(
        _ logits: UnsafeMutableBufferPointer<Float>, _ sampling: Sampling, _ wholeMass: Double, _ uniform: Double
    ) -> UInt32 {
        candidates.removeAll(keepingCapacity: true)
        for (id, logit) in logits.enumerated() where logit > -.infinity {
            candidates.append(Candidate(id: UInt32(id), logit: logit))
        }
        let limit = sampling.topK > 0 ? min(sampling.topK, candidates.count) : candidates.count
        var total = wholeMass
        var ordered = 0
        if limit < candidates.count {
            candidates.order(from: 0, count: limit)
            ordered = limit
            total = candidates[..<limit].reduce(0) { $0 + Double(weights[Int($1.id)]) }
        }
        var (kept, mass, highest) = (0, 0.0, 0.0)
        while kept < limit, kept == 0 || mass < Double(sampling.topP) * total {
            if kept == ordered {
                let count = min(limit - ordered, max(64, 7 * ordered))
                candidates.order(from: ordered, count: count)
                ordered += count
            }
            let weight = Double(weights[Int(candidates[kept].id)])
            if kept == 0 { highest = weight }
            guard weight >= Double(sampling.minP) * highest else { break }
            mass += weight
            kept += 1
        }
        var left = uniform * mass
        for candidate in candidates[..<kept] {
            left -= Double(weights[Int(candidate.id)])
            if left < 0 { return candidate.id }
        }
        return candidates[kept - 1].id
    }
}

extension SampleRow {
    /// True when the logits that are sampled are not the model's.
    fileprivate var changesLogits: Bool {
        sampling.hasPenalties || !sampling.logitBias.isEmpty || !banned.isEmpty
    }
}
