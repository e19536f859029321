import Checkpoint
import Foundation
import HybridModel
import Numerics
import Sampling
import ServiceSupport
import Serving
import WireProtocol

/// One completion with the single-process forward: no services, no wire.
enum InProcessGeneration {
    static func run(_ message: GenerateRequest, _ values: OptionValues) throws -> GenerateCommand.Result {
        let checkpoint = try ServiceInputs.checkpoint(values)
        try LoadCheck.run(checkpoint)
        let configuration = checkpoint.configuration
        let request = message.request
        guard case .tokens(let prompt) = message.prompt, !prompt.isEmpty,
            prompt.allSatisfy({ Int($0) < configuration.vocabularySize })
        else { throw UsageError("--in-process takes --prompt-ids below \(configuration.vocabularySize)") }
        guard prompt.count + request.maximumTokens <= configuration.maximumPositions else {
            throw UsageError(
                "prompt (\(prompt.count)) and --max-tokens (\(request.maximumTokens)) together exceed the context of "
                    + "\(configuration.maximumPositions) tokens")
        }
        let chunk = try values.integer("prefill-chunk", in: 64...16384) / 64 * 64
        let forward = try ReferenceForward(
            checkpoint: checkpoint, team: ThreadTeam(threadCount: try values.integer("threads", in: 1...256)),
            maximumRows: min(chunk, (prompt.count + 63) / 64 * 64), shards: try values.integer("experts", in: 1...256))
        let pages = Array(0..<(prompt.count + request.maximumTokens + 63) / 64)
        let state = try StateMemory(configuration: configuration, slotCount: 1, pageCount: pages.count)
        var logits = Array(
            forward.prefill(prompt, slot: 0, pages: pages, chunk: chunk, state: state).suffix(
                configuration.vocabularySize))
        var result = GenerateCommand.Result(promptIDs: prompt)
        var sampler = TokenSampler()
        while true {
            let position = prompt.count + result.tokens.count
            let row = SampleRow(sampling: request.sampling, position: UInt64(position))
            let token = try logits.withUnsafeMutableBufferPointer { try sampler.sample($0, row) }
            result.tokens.append(token)
            if !message.ignoresEnd, configuration.endTokenIDs.contains(token.id) {
                result.reason = .stop
                return result
            }
            guard result.tokens.count < request.maximumTokens else { return result }
            let segment = Segment(slot: 0, pages: pages, position: position, tokens: [token.id])
            logits = forward.logits([segment], state: state)
        }
    }
}
