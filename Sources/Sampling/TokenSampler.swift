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
public struct SamplingError: Error, Sendable, CustomStringConvertible {
    /// One sentence.
    public let description: String
}

/// Chooses tokens row by row. Order of operations: logprobs of the raw logits, biases and bans, penalties, temperature,
/// top-k, top-p, min-p, draw. Keeps its scratch between rows.
public struct TokenSampler {
    private var candidates: [(id: UInt32, logit: Float)] = []

    /// A sampler without scratch yet.
    public init() {}

    /// Samples one row. `logits` is changed by biases, bans and penalties. Throws when logits are not numbers or no token
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

    /// log Σ e^logit, summed in float64 in ascending order.
    private func logNormalizer(_ logits: UnsafeMutableBufferPointer<Float>) throws(SamplingError) -> Double {
        var highest = -Float.infinity
        for logit in logits {
            guard !logit.isNaN else {
                throw SamplingError(description: "the model produced a logit that is not a number")
            }
            highest = max(highest, logit)
        }
        guard highest.isFinite else { throw SamplingError(description: "the model produced no finite logit") }
        var sum = 0.0
        for logit in logits { sum += Double(Kernels.exponential(logit - highest)) }
        return Double(highest) + log(sum)
    }

    private func greedy(_ logits: UnsafeMutableBufferPointer<Float>) -> UInt32 {
        var best = 0
        for i in 1..<max(1, logits.count) where logits[i] > logits[best] { best = i }
        return UInt32(best)
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
            throw SamplingError(description: "every token is banned")
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
        candidates.removeAll(keepingCapacity: true)
        for (id, logit) in logits.enumerated() where logit > -.infinity { candidates.append((UInt32(id), logit)) }
        guard parameters.topK > 0 || parameters.topP < 1 || parameters.minP > 0 else { return pick(parameters) }
        candidates.sort { $0.logit > $1.logit || ($0.logit == $1.logit && $0.id < $1.id) }
        if parameters.topK > 0, parameters.topK < candidates.count {
            candidates.removeLast(candidates.count - parameters.topK)
        }
        let weights = self.weights(parameters.temperature)
        let total = weights.reduce(0, +)
        var kept = 0
        var mass = 0.0
        while kept < weights.count, kept == 0 || mass < Double(parameters.topP) * total {
            mass += weights[kept]
            kept += 1
        }
        while kept > 1, weights[kept - 1] < Double(parameters.minP) * weights[0] { kept -= 1 }
        candidates.removeLast(candidates.count - kept)
        return pick(parameters)
    }

    /// e^((logit - highest) / temperature) of the candidates.
    private func weights(_ temperature: Float) -> [Double] {
        let highest = candidates.map(\.logit).max() ?? 0
        return candidates.map { Double(Kernels.exponential(($0.logit - highest) / temperature)) }
    }

    /// Draws by the inverse of the cumulative distribution.
    private func pick(_ parameters: SamplingParameters) -> UInt32 {
        let weights = self.weights(parameters.temperature)
        var left = CounterRandom.uniform(seed: parameters.seed, position: parameters.position) * weights.reduce(0, +)
        for (candidate, weight) in zip(candidates, weights) {
            left -= weight
            if left < 0 { return candidate.id }
        }
        return candidates.last?.id ?? 0
    }
}

extension SamplingParameters {
    /// True when the history matters.
    public var hasPenalties: Bool { repetitionPenalty != 1 || presencePenalty != 0 || frequencyPenalty != 0 }

    /// True when the logits that are sampled are not the model's.
    var changesLogits: Bool { hasPenalties || !logitBias.isEmpty || !banned.isEmpty }
}
