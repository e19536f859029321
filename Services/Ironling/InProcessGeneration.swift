import Checkpoint
import Foundation
import HybridModel
import Numerics
import Sampling
import ServiceSupport
import WireProtocol

/// One completion with the single-process forward: no services, no wire.
enum InProcessGeneration {
    static func run(_ request: GenerateRequest, _ values: OptionValues) throws -> GenerateCommand.Result {
        let checkpoint = try ServiceInputs.checkpoint(values)
        try LoadCheck.run(checkpoint)
        let configuration = checkpoint.configuration
        guard case .tokens(let prompt) = request.prompt, !prompt.isEmpty,
            prompt.allSatisfy({ Int($0) < configuration.vocabularySize })
        else { throw UsageError("--in-process takes --prompt-ids below \(configuration.vocabularySize)") }
        guard prompt.count + Int(request.maxTokens) <= configuration.maximumPositions else {
            throw UsageError(
                "prompt (\(prompt.count)) and --max-tokens (\(request.maxTokens)) together exceed the context of "
                    + "\(configuration.maximumPositions) tokens")
        }
        let chunk = try values.integer("prefill-chunk", in: 64...16384) / 64 * 64
        let forward = try ReferenceForward(
            checkpoint: checkpoint, team: ThreadTeam(threadCount: try values.integer("threads", in: 1...256)),
            maximumRows: min(chunk, (prompt.count + 63) / 64 * 64), shards: try values.integer("experts", in: 1...256))
        let pages = Array(0..<(prompt.count + Int(request.maxTokens) + 63) / 64)
        let state = try StateMemory(configuration: configuration, slotCount: 1, pageCount: pages.count)
        var logits = Array(
            forward.prefill(prompt, slot: 0, pages: pages, chunk: chunk, state: state).suffix(
                configuration.vocabularySize))
        var result = GenerateCommand.Result(promptIDs: prompt)
        var parameters = SamplingParameters()
        parameters.temperature = request.sampling.temperature
        parameters.topK = Int(request.sampling.topK)
        parameters.topP = request.sampling.topP
        parameters.seed = request.sampling.seed
        var sampler = TokenSampler()
        while true {
            let position = prompt.count + result.tokens.count
            parameters.position = UInt64(position)
            let token = try logits.withUnsafeMutableBufferPointer { try sampler.sample($0, parameters) }
            result.tokens.append(TokenLogprob(id: token.id, logprob: token.logprob))
            if !request.ignoresEnd, configuration.endTokenIDs.contains(token.id) {
                result.reason = .stop
                return result
            }
            guard result.tokens.count < Int(request.maxTokens) else { return result }
            let segment = Segment(slot: 0, pages: pages, position: position, tokens: [token.id], isPrefill: false)
            logits = forward.logits([segment], state: state)
        }
    }
}
