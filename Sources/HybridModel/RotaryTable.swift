import Checkpoint
import Numerics

/// Rotary frequencies of both layer kinds, with YaRN (docs/model.md#positions).
public struct RotaryTable: Sendable {
    /// θ^(-2j/rd), j = 0 ..< rd/2, scaled by YaRN.
    public let inverseFrequencies: [Float]
    /// Factor on cosine and sine.
    public let attentionFactor: Float
    /// Factor on the MLA softmax scale.
    public let softmaxFactor: Float

    /// The table of a model.
    public init(_ configuration: ModelConfiguration) {
        let width = configuration.ropeWidth
        let theta = configuration.ropeTheta
        let plain = (0..<width / 2).map { Float(1 / Kernels.power(theta, Double(2 * $0) / Double(width))) }
        guard let yarn = configuration.yarn else {
            inverseFrequencies = plain
            attentionFactor = 1
            softmaxFactor = 1
            return
        }
        func dimension(_ rotations: Double) -> Double {
            let positions = Double(yarn.originalMaximumPositions)
            return Double(width) * Kernels.logarithm(positions / (2 * .pi * rotations)) / (2 * Kernels.logarithm(theta))
        }
        let (first, last) = (dimension(yarn.betaFast), dimension(yarn.betaSlow))
        let low = max(yarn.truncates ? first.rounded(.down) : first, 0)
        let high = min(yarn.truncates ? last.rounded(.up) : last, Double(width - 1))
        inverseFrequencies = plain.enumerated().map { j, frequency in
            let ramp = Float(min(max((Double(j) - low) / max(high - low, 0.001), 0), 1))
            return frequency / Float(yarn.factor) * ramp + frequency * (1 - ramp)
        }
        func magnitude(_ scale: Double, _ a: Double) -> Double {
            scale <= 1 ? 1 : 0.1 * a * Kernels.logarithm(scale) + 1
        }
        if let given = yarn.attentionFactor {
            attentionFactor = Float(given)
        } else if let own = yarn.magnitudeScale, let all = yarn.magnitudeScaleAllDimensions {
            attentionFactor = Float(magnitude(yarn.factor, own) / magnitude(yarn.factor, all))
        } else {
            attentionFactor = Float(magnitude(yarn.factor, 1))
        }
        let all = yarn.magnitudeScaleAllDimensions.map { magnitude(yarn.factor, $0) } ?? 1
        softmaxFactor = Float(all * all)
    }

    /// Cosines and sines of one position, [rd / 2] each.
    public func fill(
        position: Int, cosine: UnsafeMutablePointer<Float>, sine: UnsafeMutablePointer<Float>
    ) {
        for (j, frequency) in inverseFrequencies.enumerated() {
            let angle = Kernels.cosineAndSine(Double(Float(position) * frequency))
            cosine[j] = Float(angle.cosine) * attentionFactor
            sine[j] = Float(angle.sine) * attentionFactor
        }
    }
}

/// Per-head decay of the linear layers (docs/model.md#decay).
public enum DecaySlopes {
    /// g[layer, head] < 0 for all heads; the state decays by exp(g) per token.
    public static func slopes(layer: Int, configuration: ModelConfiguration) -> [Float] {
        let offset = configuration.decayConvention == .a ? 1 : 0
        let factor = 1 - Double(layer - offset) / Double(configuration.layerCount - 1) + 1e-5
        return base(configuration.headCount).map { Float(-$0 * factor) }
    }

    private static func base(_ heads: Int) -> [Double] {
        func powers(_ count: Int) -> [Double] {
            (0..<count).map { Kernels.power(2, -8 * Double($0 + 1) / Double(count)) }
        }
        let whole = 1 << (Int.bitWidth - 1 - heads.leadingZeroBitCount)
        guard whole != heads else { return powers(heads) }
        let finer = powers(2 * whole)
        return powers(whole) + (0..<heads - whole).map { finer[2 * $0] }
    }
}
