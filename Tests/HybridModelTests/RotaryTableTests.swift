import Checkpoint
import Foundation
import HybridModel
import Testing

/// What YaRN's optional fields do to frequencies and magnitudes.
struct RotaryTableTests {
    private func table(_ changes: [String: Any]) throws -> RotaryTable {
        let file = URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
            .appendingPathComponent("Fixtures/golden/base/config.json")
        var object = try #require(try JSONSerialization.jsonObject(with: Data(contentsOf: file)) as? [String: Any])
        var scaling: [String: Any] = ["rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 512]
        scaling.merge(changes) { $1 }
        object["rope_scaling"] = scaling
        return RotaryTable(
            try ModelConfiguration(json: JSONSerialization.data(withJSONObject: object, options: .sortedKeys)))
    }

    @Test func anAttentionFactorReplacesTheComputedOne() throws {
        let computed = try table([:])
        #expect(abs(computed.attentionFactor - Float(0.1 * log(4.0) + 1)) < 1e-6)
        let given = try table(["attention_factor": 2.0, "mscale": 1.0, "mscale_all_dim": 0.5])
        #expect(given.attentionFactor == 2)
        #expect(given.inverseFrequencies == computed.inverseFrequencies)
        // The softmax keeps its own factor.
        #expect(given.softmaxFactor == (try table(["mscale": 1.0, "mscale_all_dim": 0.5])).softmaxFactor)
    }

    @Test func boundsAreWholeUnlessToldOtherwise() throws {
        let (whole, exact) = (try table([:]), try table(["truncate": false]))
        #expect(try table(["truncate": true]).inverseFrequencies == whole.inverseFrequencies)
        #expect(exact.inverseFrequencies != whole.inverseFrequencies)
        let (width, theta) = (8.0, 6_000_000.0)
        func dimension(_ rotations: Double) -> Double { width * log(512 / (2 * .pi * rotations)) / (2 * log(theta)) }
        let (low, high) = (max(dimension(32), 0), min(dimension(1), width - 1))
        for (j, frequency) in exact.inverseFrequencies.enumerated() {
            let plain = pow(theta, -2 * Double(j) / width)
            let ramp = min(max((Double(j) - low) / (high - low), 0), 1)
            let wanted = plain / 4 * ramp + plain * (1 - ramp)
            #expect(abs(Double(frequency) / wanted - 1) < 1e-5, "\(j)")
        }
    }
}
