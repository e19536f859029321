import Glibc
import Numerics

/// How one row of logits becomes a token.
public struct SamplingParameters: Sendable {
    /// 0 is greedy: the highest logit, ties to the lowest id.
    public var temperature: Float = 0
    /// Keep the k likeliest; 0 keeps all.
    public var topK = 0
    /// Keep the smallest set of likeliest tokens whose probability reaches this.
    public var topP: Float = 1
    /// Drop tokens less likely than this times the likeliest.
    public var minP: Float = 0
    /// Divides positive and multiplies negative logits of tokens in the history.
    public var repetitionPenalty: Float = 1
    /// Subtracted once from the logit of every token in the output.
    public var presencePenalty: Float = 0
    /// Subtracted per occurrence from the logit of every token in the output.
    public var frequencyPenalty: Float = 0
    /// Seed of the random number.
    public var seed: UInt64 = 0
    /// Position of the token; with the seed it determines the random number.
    public var position: UInt64 = 0
    /// Added to the logits of single tokens before anything else; ids beyond the logits are ignored.
    public var logitBias: [(id: UInt32, bias: Float)] = []
    /// Tokens that must not be chosen.
    public var banned: [UInt32] = []

    /// Greedy.
    public init() {}
}

/// A chosen token and what the model thought of it.
public struct SampledToken: Sendable, Equatable {
    /// The token.
    public var id: UInt32
    /// log softmax of the raw logits at the token, before penalties and temperature.
    public var logprob: Float
    /// The likeliest tokens, best first, ties to the lower id.
    public var top: [(id: UInt32, logprob: Float)]

    /// Equality of all parts.
    public static func == (a: SampledToken, b: SampledToken) -> Bool {
        a.id == b.id && a.logprob == b.logprob && a.top.map(\.id) == b.top.map(\.id)
            && a.top.map(\.logprob) == b.top.map(\.logprob)
    }
}

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
    ///
    /// - history: prompt then output ids, of which the first `promptCount` are the prompt; only needed with penalties.
    public mutating func sample(
        _ logits: UnsafeMutableBufferPointer<Float>, _ parameters: SamplingParameters, topLogprobs: Int = 0,
        history: [UInt32] = [], promptCount: Int = 0
    ) throws(SamplingError) -> SampledToken {
        let normalizer = try logNormalizer(logits)
        let top = likeliest(logits, topLogprobs).map { (id: $0.id, logprob: Float(Double($0.logit) - normalizer)) }
        let raw = parameters.changesLogits ? Array(logits) : []
        if parameters.changesLogits { try adjust(logits, parameters) }
        if parameters.hasPenalties { penalize(logits, parameters, history, promptCount) }
        let id = parameters.temperature == 0 ? greedy(logits) : draw(logits, parameters)
        let logit = raw.isEmpty ? logits[Int(id)] : raw[Int(id)]
        return SampledToken(id: id, logprob: Float(Double(logit) - normalizer), top: top)
    }

    /// log Σ e^logit, summed in float64 in a fixed order.
    private mutating func logNormalizer(_ logits: UnsafeMutableBufferPointer<Float>) throws(SamplingError) -> Double {
        guard let base = logits.baseAddress else { throw .brokenLogits("there are no logits") }
        let highest = Kernels.maximum(base, logits.count)
        guard !highest.isNaN else {
            throw .brokenLogits("the model produced a logit that is not a number")
        }
        guard highest.isFinite else { throw .brokenLogits("the model produced no finite logit") }
        return Double(highest) + log(exponentialSum(base, logits.count, highest: highest, temperature: 1))
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

    private func adjust(
        _ logits: UnsafeMutableBufferPointer<Float>, _ parameters: SamplingParameters
    ) throws(SamplingError) {
        for (id, bias) in parameters.logitBias where Int(id) < logits.count { logits[Int(id)] += bias }
        for id in parameters.banned where Int(id) < logits.count { logits[Int(id)] = -.infinity }
        guard parameters.banned.isEmpty || logits.contains(where: { $0 > -.infinity }) else {
            throw .everyTokenIsBanned
        }
    }

    private func penalize(
        _ logits: UnsafeMutableBufferPointer<Float>, _ parameters: SamplingParameters, _ history: [UInt32],
        _ promptCount: Int
    ) {
        for id in Set(history) where Int(id) < logits.count {
            let logit = logits[Int(id)]
            logits[Int(id)] =
                logit > 0 ? logit / parameters.repetitionPenalty : logit * parameters.repetitionPenalty
        }
        var counts: [UInt32: Int] = [:]
        for id in history.dropFirst(promptCount) { counts[id, default: 0] += 1 }
        for (id, count) in counts where Int(id) < logits.count {
            logits[Int(id)] -= parameters.presencePenalty + parameters.frequencyPenalty * Float(count)
        }
    }

    private mutating func draw(
        _ logits: UnsafeMutableBufferPointer<Float>, _ parameters: SamplingParameters
    ) -> UInt32 {
        guard let base = logits.baseAddress else { return 0 }
        let highest = Kernels.maximum(base, logits.count)
        // penalties may leave no finite logit, then every choice is as good as the first
        guard highest.isFinite else { return 0 }
        let total = exponentialSum(base, logits.count, highest: highest, temperature: parameters.temperature)
        let uniform = CounterRandom.uniform(seed: parameters.seed, position: parameters.position)
        if parameters.topK > 0 || parameters.topP < 1 || parameters.minP > 0 {
            return drawFiltered(logits, parameters, total, uniform)
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
        _ logits: UnsafeMutableBufferPointer<Float>, _ parameters: SamplingParameters, _ wholeMass: Double,
        _ uniform: Double
    ) -> UInt32 {
        candidates.removeAll(keepingCapacity: true)
        for (id, logit) in logits.enumerated() where logit > -.infinity {
            candidates.append(Candidate(id: UInt32(id), logit: logit))
        }
        let limit = parameters.topK > 0 ? min(parameters.topK, candidates.count) : candidates.count
        var total = wholeMass
        var ordered = 0
        if limit < candidates.count {
            candidates.order(from: 0, count: limit)
            ordered = limit
            total = candidates[..<limit].reduce(0) { $0 + Double(weights[Int($1.id)]) }
        }
        var (kept, mass, highest) = (0, 0.0, 0.0)
        while kept < limit, kept == 0 || mass < Double(parameters.topP) * total {
            if kept == ordered {
                let count = min(limit - ordered, max(64, 7 * ordered))
                candidates.order(from: ordered, count: count)
                ordered += count
            }
            let weight = Double(weights[Int(candidates[kept].id)])
            if kept == 0 { highest = weight }
            guard weight >= Double(parameters.minP) * highest else { break }
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

extension SamplingParameters {
    /// True when the history matters.
    public var hasPenalties: Bool { repetitionPenalty != 1 || presencePenalty != 0 || frequencyPenalty != 0 }

    /// True when the logits that are sampled are not the model's.
    var changesLogits: Bool { hasPenalties || !logitBias.isEmpty || !banned.isEmpty }
}
