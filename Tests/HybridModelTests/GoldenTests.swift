import Checkpoint
import HybridModel
import Testing

private let plain = ["base", "noqlora6h", "tail", "yarn", "mtp"]

@Suite struct GoldenTests {
    @Test(arguments: plain) func logitsOfAllPrompts(name: String) throws {
        let golden = try Golden(name)
        let rig = try Rig(golden.checkpoint)
        let prompts = golden.names.filter { $0.hasPrefix("p") && $0.hasSuffix(".ids") }.map { String($0.dropLast(4)) }
        #expect(prompts.count == 5)
        for prompt in prompts {
            let logits = rig.prefill(try golden.tokens("\(prompt).ids"))
            let difference = largestDifference(logits, try golden.floats("\(prompt).logits"))
            #expect(difference <= 1e-4, "\(name) \(prompt): max |Δlogit| \(difference)")
        }
    }

    @Test func quantisedWeightsMatchTheirDequantisedReference() throws {
        let golden = try Golden("fp8")
        let rig = try Rig(golden.checkpoint)
        for prompt in ["p5", "p65"] {
            let logits = rig.prefill(try golden.tokens("\(prompt).ids"))
            let difference = largestDifference(logits, try golden.floats("\(prompt).logits_w8a16"))
            #expect(difference <= 1e-4, "\(prompt): max |Δlogit| \(difference)")
        }
    }

    @Test(arguments: plain) func hiddenStatesAndRouting(name: String) throws {
        let golden = try Golden(name)
        let configuration = golden.checkpoint.configuration
        let rig = try Rig(golden.checkpoint)
        for prompt in ["p5", "p65"] {
            var hidden: [Int: [Float]] = [:]
            var logits: [Int: [Float]] = [:]
            var choices: [Int: [Int32]] = [:]
            rig.forward.onHidden = { layer, rows, count in
                hidden[layer] = (0..<count * configuration.hiddenSize).map { rows[$0] }
            }
            rig.forward.onRouting = { layer, routed in
                let index = layer - configuration.denseLayerCount
                logits[index] = (0..<routed.rowCount * configuration.expertCount).map { routed.logits[$0] }
                choices[index] = (0..<routed.rowCount * configuration.expertsPerToken).map { routed.expertIDs[$0] }
            }
            _ = rig.prefill(try golden.tokens("\(prompt).ids"))
            for layer in 0...configuration.layerCount {
                let difference = largestDifference(hidden[layer] ?? [], try golden.floats("\(prompt).h\(layer)"))
                #expect(difference <= 1e-4, "\(name) \(prompt) layer \(layer): \(difference)")
            }
            for index in 0..<configuration.layerCount - configuration.denseLayerCount {
                let wanted = try golden.integers("\(prompt).moe\(index).topk_idx")
                #expect(sets(choices[index] ?? [], configuration) == sets(wanted, configuration))
                let difference = largestDifference(
                    logits[index] ?? [], try golden.floats("\(prompt).moe\(index).router_logits"))
                #expect(difference <= 1e-4)
            }
        }
    }

    private func sets(_ ids: [Int32], _ configuration: ModelConfiguration) -> [Set<Int32>] {
        stride(from: 0, to: ids.count, by: configuration.expertsPerToken).map {
            Set(ids[$0..<$0 + configuration.expertsPerToken])
        }
    }

    @Test(arguments: plain) func greedyDecodingAndFinalStates(name: String) throws {
        let golden = try Golden(name)
        let configuration = golden.checkpoint.configuration
        let rig = try Rig(golden.checkpoint)
        let prompt = try golden.tokens("dec.prompt")
        let wanted = try golden.tokens("dec.tokens")
        let rows = try golden.floats("dec.logits")
        var logits = Array(rig.prefill(prompt).suffix(rig.vocabulary))
        var tokens: [UInt32] = []
        for step in wanted.indices {
            let row = rows[step * rig.vocabulary..<(step + 1) * rig.vocabulary]
            #expect(largestDifference(logits, row) <= 1e-4, "\(name) step \(step)")
            tokens.append(argmax(logits))
            logits = rig.decode(tokens[step], position: prompt.count + step)
        }
        #expect(tokens == wanted)
        for (index, layer) in configuration.linearLayers.enumerated() {
            let state = rig.state.state(slot: 0, linearIndex: index)
            let wanted = try golden.floats("dec.state.l\(layer)")
            let difference = largestDifference(wanted.indices.map { state[$0] }, wanted)
            #expect(difference <= 1e-4, "\(name) state of layer \(layer): \(difference)")
        }
    }

    @Test(arguments: plain) func rotaryFrequenciesAndSlopes(name: String) throws {
        let golden = try Golden(name)
        let configuration = golden.checkpoint.configuration
        let table = RotaryTable(configuration)
        #expect(largestDifference(table.inverseFrequencies, try golden.floats("rope.inv_freq")) <= 1e-7)
        #expect(largestDifference([table.attentionFactor], try golden.floats("rope.attention_scaling")) <= 1e-6)
        for layer in configuration.linearLayers {
            let slopes = DecaySlopes.slopes(layer: layer, configuration: configuration)
            #expect(largestDifference(slopes, try golden.floats("slope.l\(layer)")) <= 1e-7)
        }
    }
}
