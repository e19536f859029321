import Checkpoint
import Numerics

/// Group-limited sigmoid routing with a selection bias (docs/model.md#experts), one row at a time.
struct Router {
    let expertCount: Int
    let topK: Int
    let groupCount: Int
    let keptGroupCount: Int
    let scalingFactor: Float

    init(_ configuration: ModelConfiguration) {
        expertCount = configuration.expertCount
        topK = configuration.expertsPerToken
        groupCount = configuration.groupCount
        keptGroupCount = configuration.keptGroupCount
        scalingFactor = configuration.routedScalingFactor
    }

    /// Floats of scratch for one row.
    var scratchCount: Int { 2 * expertCount + groupCount }

    /// Chooses `topK` experts from `logits` [E]: ids by falling biased score and their normalised weights.
    func route(
        logits: UnsafePointer<Float>, bias: UnsafePointer<Float>?, ids: UnsafeMutablePointer<Int32>,
        weights: UnsafeMutablePointer<Float>, scratch: UnsafeMutablePointer<Float>
    ) {
        let scores = scratch
        let choice = scratch + expertCount
        for e in 0..<expertCount { scores[e] = logits[e] }
        Kernels.sigmoid(scores, expertCount)
        for e in 0..<expertCount { choice[e] = scores[e] + (bias?[e] ?? 0) }
        if groupCount > 1 { dropGroups(choice, groupScores: scratch + 2 * expertCount) }
        var total: Float = 0
        for k in 0..<topK {
            var best = 0
            for e in 1..<expertCount where choice[e] > choice[best] { best = e }
            choice[best] = -.infinity
            ids[k] = Int32(best)
            weights[k] = scores[best]
            total += scores[best]
        }
        for k in 0..<topK { weights[k] = weights[k] / (total + 1e-20) * scalingFactor }
    }

    /// Keeps the groups with the largest sums of their two best scores; the others get -∞.
    private func dropGroups(_ choice: UnsafeMutablePointer<Float>, groupScores: UnsafeMutablePointer<Float>) {
        let size = expertCount / groupCount
        for group in 0..<groupCount {
            var (first, second) = (-Float.infinity, -Float.infinity)
            for e in group * size..<(group + 1) * size {
                if choice[e] > first {
                    second = first
                    first = choice[e]
                } else if choice[e] > second {
                    second = choice[e]
                }
            }
            groupScores[group] = first + second
        }
        for group in 0..<groupCount {
            let ahead = (0..<groupCount).count(where: { other in
                groupScores[other] > groupScores[group] || (groupScores[other] == groupScores[group] && other < group)
            })
            guard ahead >= keptGroupCount else { continue }
            for e in group * size..<(group + 1) * size { choice[e] = -.infinity }
        }
    }
}
