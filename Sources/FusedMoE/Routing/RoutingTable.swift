import Numerics

/// Which experts every token goes to, and with which weight. The kernels get it ready: routing is outside of them.
public struct RoutingTable: Sendable, Equatable {
    /// Tokens over all devices.
    public let tokens: Int
    /// Experts per token.
    public let topK: Int
    /// Routed experts.
    public let experts: Int
    /// Expert ids [tokens, topK]; -1 sends nothing.
    public let expertIDs: [Int32]
    /// Weights [tokens, topK].
    public let weights: [Float]

    /// A table of given ids and weights, both [tokens, topK].
    ///
    /// - Throws: `FusedMoEError` with code `.routing` when sizes differ, an id is outside -1 ..< experts, a token names
    ///   an expert twice, or a weight is not finite.
    public init(
        tokens: Int, topK: Int, experts: Int, expertIDs: [Int32], weights: [Float]
    ) throws(FusedMoEError) {
        guard tokens > 0, topK > 0, experts > 0, expertIDs.count == tokens * topK, weights.count == expertIDs.count
        else {
            throw FusedMoEError(
                .routing,
                "\(tokens) tokens with \(topK) experts need \(tokens * topK) ids and weights, not \(expertIDs.count) "
                    + "and \(weights.count)")
        }
        for token in 0..<tokens {
            let row = expertIDs[token * topK..<(token + 1) * topK]
            for (k, id) in row.enumerated() {
                guard id >= -1, id < experts else {
                    throw FusedMoEError(
                        .routing, "token \(token) names expert \(id), there are \(experts) (-1 sends nothing)")
                }
                guard id < 0 || !row.prefix(k).contains(id) else {
                    throw FusedMoEError(.routing, "token \(token) names expert \(id) twice")
                }
                guard weights[token * topK + k].isFinite else {
                    throw FusedMoEError(.routing, "the weight of expert \(id) for token \(token) is not finite")
                }
            }
        }
        self.init(unchecked: tokens, topK, experts, expertIDs, weights)
    }

    private init(unchecked tokens: Int, _ topK: Int, _ experts: Int, _ expertIDs: [Int32], _ weights: [Float]) {
        self.tokens = tokens
        self.topK = topK
        self.experts = experts
        self.expertIDs = expertIDs
        self.weights = weights
    }

    /// A made-up table for a problem: a pure function of pattern and seed, the same on every machine.
    ///
    /// - Throws: `FusedMoEError` when the problem is not valid.
    public static func generated(
        _ pattern: RoutingPattern, for problem: MoEProblem, seed: UInt64
    ) throws(FusedMoEError) -> RoutingTable {
        let problem = try problem.validated()
        let shape = problem.shape
        var sampler = ExpertSampler(
            frequencies: pattern.frequencies(experts: shape.experts, expertsPerDevice: problem.expertsPerDevice),
            topK: shape.topK, seed: seed)
        var ids: [Int32] = []
        ids.reserveCapacity(problem.tokens * shape.topK)
        for token in 0..<problem.tokens { sampler.appendExperts(of: token, to: &ids) }
        let weight = 1 / Float(shape.topK)
        return RoutingTable(
            unchecked: problem.tokens, shape.topK, shape.experts, ids, [Float](repeating: weight, count: ids.count))
    }

    /// Refuses a table that is not one of `problem`.
    ///
    /// - Throws: `FusedMoEError` with code `.routing`.
    public func check(_ problem: MoEProblem) throws(FusedMoEError) {
        guard tokens == problem.tokens, topK == problem.shape.topK, experts == problem.shape.experts else {
            throw FusedMoEError(
                .routing,
                "the routing table is for \(tokens) tokens, top-\(topK) of \(experts) experts; the call has "
                    + "\(problem.tokens), top-\(problem.shape.topK) of \(problem.shape.experts)")
        }
    }
}

/// Draws k different experts per token in proportion to their frequencies, one after the other.
private struct ExpertSampler {
    private let frequencies: [Double]
    private let cumulative: [Double]
    private let isUniform: Bool
    private let topK: Int
    private let key: SIMD2<UInt32>
    private var taken: [Bool]

    init(frequencies: [Double], topK: Int, seed: UInt64) {
        self.frequencies = frequencies
        var sum = 0.0
        cumulative = frequencies.map {
            sum += $0
            return sum
        }
        isUniform = frequencies.allSatisfy { $0 == frequencies[0] }
        self.topK = topK
        key = SIMD2(UInt32(truncatingIfNeeded: seed), UInt32(truncatingIfNeeded: seed >> 32))
        taken = [Bool](repeating: false, count: frequencies.count)
    }

    mutating func appendExperts(of token: Int, to ids: inout [Int32]) {
        let start = ids.count
        var attempt: UInt32 = 0
        while ids.count - start < topK {
            let words = CounterRandom.philox(
                counter: SIMD4(UInt32(truncatingIfNeeded: token), attempt, 0x4D6F_4521, 0), key: key)
            attempt += 1
            for pair in 0..<2 where ids.count - start < topK {
                let bits = UInt64(words[2 * pair]) << 21 ^ UInt64(words[2 * pair + 1]) >> 11
                // After many collisions the rest is drawn from what is left: skewed patterns end as well.
                let expert = attempt > 64 ? drawRemaining(Double(bits) * 0x1p-53) : draw(Double(bits) * 0x1p-53)
                guard !taken[expert] else { continue }
                taken[expert] = true
                ids.append(Int32(expert))
            }
        }
        for id in ids[start...] { taken[Int(id)] = false }
    }

    private func draw(_ fraction: Double) -> Int {
        guard !isUniform else { return min(frequencies.count - 1, Int(fraction * Double(frequencies.count))) }
        let target = fraction * cumulative[cumulative.count - 1]
        var (low, high) = (0, cumulative.count - 1)
        while low < high {
            let middle = (low + high) / 2
            if cumulative[middle] > target { high = middle } else { low = middle + 1 }
        }
        return low
    }

    private func drawRemaining(_ fraction: Double) -> Int {
        let left = frequencies.indices.filter { !taken[$0] }
        var target = fraction * left.reduce(0) { $0 + frequencies[$1] }
        for expert in left {
            target -= frequencies[expert]
            if target < 0 { return expert }
        }
        return left[0]
    }
}
