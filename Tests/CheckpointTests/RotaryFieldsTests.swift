import Checkpoint
import Foundation
import Testing

/// `rope_theta`, `rope_scaling` and `rope_parameters`, alone and together.
struct RotaryFieldsTests {
    private static var yarn: [String: Any] {
        ["rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 512]
    }

    private func parsed(
        scaling: [String: Any]? = nil, parameters: [String: Any]? = nil, theta: Double? = 10000
    ) throws -> ModelConfiguration {
        var changes: [String: Any] = ["max_position_embeddings": 2048]
        changes["rope_scaling"] = scaling.map { $0 as Any } ?? NSNull()
        changes["rope_parameters"] = parameters.map { $0 as Any } ?? NSNull()
        changes["rope_theta"] = theta.map { $0 as Any } ?? NSNull()
        return try ModelConfiguration(json: configuration(changes))
    }

    private func with(_ object: [String: Any], _ changes: [String: Any]) -> [String: Any] {
        object.merging(changes) { $1 }
    }

    @Test func parametersStandForThetaAndScaling() throws {
        let old = try parsed(scaling: Self.yarn)
        #expect(old.yarn?.factor == 4 && old.yarn?.originalMaximumPositions == 512 && old.yarn?.truncates == true)
        #expect(try parsed(parameters: with(Self.yarn, ["rope_theta": 10000]), theta: nil) == old)
        #expect(try parsed(parameters: with(Self.yarn, ["rope_theta": 10000])) == old)
        #expect(try parsed(parameters: Self.yarn) == old)
        #expect(try parsed(scaling: with(Self.yarn, ["rope_theta": 10000]), theta: nil) == old)
        #expect(try parsed(scaling: ["type": "yarn", "factor": 4, "original_max_position_embeddings": 512]) == old)
    }

    @Test func bothMustSayTheSame() throws {
        #expect(try parsed(scaling: Self.yarn, parameters: Self.yarn) == parsed(scaling: Self.yarn))
        for other: [String: Any] in [
            with(Self.yarn, ["factor": 2]), ["rope_type": "default"], with(Self.yarn, ["truncate": false]),
        ] {
            let sentence = refusal { _ = try parsed(scaling: Self.yarn, parameters: other) }
            #expect(sentence?.contains("rope_parameters contradicts rope_scaling") == true, "\(sentence ?? "accepted")")
        }
        let theta = refusal { _ = try parsed(parameters: ["rope_theta": 500]) }
        #expect(theta?.contains("rope_theta is 500.0, and 10000.0 elsewhere") == true, "\(theta ?? "accepted")")
        let types = refusal { _ = try parsed(scaling: with(Self.yarn, ["type": "linear"])) }
        #expect(types?.contains("rope_type is yarn, but type is linear") == true, "\(types ?? "accepted")")
        #expect(
            refusal { _ = try parsed(parameters: ["rope_type": "default"], theta: nil) }?.contains(
                "rope_theta is missing") == true)
    }

    @Test func defaultAndNothingScaleNothing() throws {
        let plain = try parsed()
        #expect(plain.yarn == nil)
        for object: [String: Any] in [["rope_type": "default"], ["type": "default"], [:], ["rope_theta": 10000.0]] {
            #expect(try parsed(scaling: object) == plain)
            #expect(try parsed(parameters: object) == plain)
        }
        let noted = try parsed(parameters: ["rope_type": "default", "factor": 2])
        #expect(noted.yarn == nil && noted.notes.contains { $0.contains("factor is not used") })
    }

    @Test func whatReplacesAComputedValueIsRead() throws {
        let given = try parsed(
            scaling: with(
                Self.yarn,
                [
                    "attention_factor": 2.0, "truncate": false, "beta_fast": 16, "beta_slow": 2, "mscale": 1.0,
                    "mscale_all_dim": 0.5,
                ]))
        let yarn = try #require(given.yarn)
        #expect(yarn.attentionFactor == 2 && !yarn.truncates && yarn.betaFast == 16 && yarn.betaSlow == 2)
        #expect(yarn.magnitudeScale == 1 && yarn.magnitudeScaleAllDimensions == 0.5)
        let nulls: [String: Any] = ["attention_factor": NSNull(), "truncate": NSNull(), "beta_fast": NSNull()]
        #expect(try parsed(scaling: with(Self.yarn, nulls)) == parsed(scaling: Self.yarn))
    }

    @Test(arguments: ["linear", "dynamic", "llama3", "longrope", "su", "proportional"])
    func otherKindsAreRefusedByName(kind: String) {
        let object: [String: Any] = [
            "rope_type": kind, "factor": 2.0, "low_freq_factor": 1, "short_factor": [1, 2], "long_mscale": 1,
        ]
        for sentence in [refusal { _ = try parsed(scaling: object) }, refusal { _ = try parsed(parameters: object) }] {
            #expect(
                sentence?.contains("rope_type must be default or yarn, not \(kind)") == true,
                "\(sentence ?? "accepted")")
        }
    }

    @Test func whatIsNotKnownIsRefusedByName() {
        let extra = refusal { _ = try parsed(scaling: with(Self.yarn, ["extrapolation_factor": 1])) }
        #expect(extra?.contains("rope_scaling: extrapolation_factor") == true, "\(extra ?? "accepted")")
        let layers = refusal { _ = try parsed(parameters: ["full_attention": Self.yarn]) }
        #expect(layers?.contains("rope_parameters: full_attention") == true, "\(layers ?? "accepted")")
        #expect(
            refusal { _ = try parsed(scaling: with(Self.yarn, ["attention_factor": -1])) }?.contains("attention_factor")
                == true)
        #expect(refusal { _ = try parsed(scaling: with(Self.yarn, ["truncate": 1])) }?.contains("truncate") == true)
    }

    @Test func partialRotationMayStandAmongTheParameters() throws {
        let moved = try configuration(
            ["partial_rotary_factor": NSNull(), "rope_parameters": ["partial_rotary_factor": 0.5]])
        #expect(try ModelConfiguration(json: moved) == ModelConfiguration(json: configuration()))
        let other = try configuration(["rope_parameters": ["partial_rotary_factor": 0.25]])
        #expect(refusal { _ = try ModelConfiguration(json: other) }?.contains("partial_rotary_factor") == true)
    }

    @Test func aContextThatTheScalingDoesNotReachIsNoted() throws {
        #expect(try parsed(scaling: Self.yarn).notes.isEmpty)
        let noted = try parsed(scaling: with(Self.yarn, ["factor": 2])).notes
        #expect(noted.contains { $0.contains("reaches 1024 positions") && $0.contains("2048") }, "\(noted)")
    }
}
