import FusedMoE
import TPU

/// What stands beside the table: other readings of a figure, what a miss would need, numbers that are known besides.
extension ValidationRuns {
    /// V1 at 512 tokens in an earlier version, by its published stages.
    private static var earlierKernel: Double { 0.384 }
    /// KV tokens of a rank in the published engine's log.
    private static var loggedTokens: Double { 1_786_880 }

    mutating func notes(_ comparisons: [ServingValidation.Comparison]) throws -> [String] {
        var notes = try [128, 512].map { try decodeReading($0) }
        notes.append(try decodeMiss(comparisons))
        notes.append(try wholeRunRatio())
        notes.append(try metadataNote())
        let memory = try deployment(.v2, costs).memory
        let difference = 100 * (Double(memory.tokensPerRank) / Self.loggedTokens - 1)
        notes.append(
            "KV tokens of a rank: \(memory.tokensPerRank) here, \(Int(Self.loggedTokens)) in the published engine's log "
                + "(\(Self.text(difference)) %), beside \(memory.requestsPerRank) requests. The usable share of the HBM, "
                + "0.9, was chosen with the log in sight.")
        let load = ServingCase.decode512
        let capacity = H200Reference(costs: costs).capacity(tokens: load.promptTokens + load.outputTokens)
        notes.append(
            "16 H200 hold \(capacity) requests of \(load.promptTokens) + \(load.outputTokens) tokens beside the weights: "
                + "memory does not bound the comparison at \(load.concurrency).")
        return notes
    }

    /// The gain of decode steps alone, and what a published number would need if it were meant so.
    private mutating func decodeReading(_ concurrency: Int) throws -> String {
        let (v1, v2) = (try decode(concurrency, .v1), try decode(concurrency, .v2))
        let step = Double(concurrency) / v2.decodeTokensPerSecond * 1e3
        let gain = 100 * (v2.decodeTokensPerSecond / v1.decodeTokensPerSecond - 1)
        let kernel = try kernelMilliseconds(concurrency)
        let layers = Double(ModelShape.ling1T.expertLayers)
        let earlier = 100 * layers * (Self.earlierKernel - kernel) / step
        return "decode steps alone at \(concurrency): \(Self.text(step)) ms with V2, of which the kernel is "
            + "\(Self.text(layers * kernel)); V1 to V2 is \(Self.text(gain)) %"
            + (concurrency == 512
                ? ". With V1's \(Self.earlierKernel) ms of an earlier version (stage splits at 512 tokens) instead of "
                    + "0.249 it would be \(Self.text(earlier)) %, close to the published 35.3." : ".")
    }

    private mutating func kernelMilliseconds(_ concurrency: Int) throws -> Double {
        var own = try deployment(.v2, costs)
        return Double(own.kernelTime(rows: concurrency / own.ranks)) * 1e-9
    }

    private mutating func decodeMiss(_ comparisons: [ServingValidation.Comparison]) throws -> String {
        let gains = comparisons.filter { $0.figure.id.hasSuffix("-gain") }
        let prefill = gains.first { $0.figure.id == "e2e-prefill-gain" }?.ours ?? 0
        return
            "e2e-decode-gain is read as the output rate of whole runs (512 and 2,048 prompts), prompts included, because "
            + "the publishers say that it contains them. A whole run mixes the prefill gain (\(Self.text(prefill)) %) with the "
            + "decode gain above and cannot exceed the larger of the two: 35.3 % is out of reach of any mix of the "
            + "published kernel times, whatever a step costs besides."
    }

    /// What exchanging routing counts directly saves; published for a load that was not stated.
    private func metadataNote() throws -> String {
        let work = StepWork(ranks: 8, each: Array(repeating: .decode(context: 1536), count: 8))
        let steps = try [MetadataExchange.butterfly, .direct].map { metadata in
            var own = try Deployment(options: DeploymentOptions(metadata: metadata), costs: costs, device: device)
            return Double(own.cost(of: work).total) * 1e-9
        }
        return
            "exchanging routing counts directly: \(Self.text(steps[0])) to \(Self.text(steps[1])) ms a decode step of 64 "
            + "requests here; published is a TPOT of 32.6 to 31.1 ms at a load that is not stated."
    }

    /// Why the H200 ratio is not one of whole runs.
    private mutating func wholeRunRatio() throws -> String {
        let reference = H200Reference(costs: costs)
        let ratios = try [128, 512].map { concurrency in
            let load = concurrency == 512 ? ServingCase.decode512 : .decode128
            let prompts =
                Double(load.concurrency * load.promptTokens) / reference.prefillThroughput(prompt: load.promptTokens)
            let answers =
                Double(load.concurrency * load.outputTokens)
                / reference.decodeThroughput(concurrency: concurrency, context: load.meanDecodeContext)
            let other = Double(load.concurrency * load.outputTokens) / (prompts + answers)
            return Self.text(try decode(concurrency, .v2).outputTokensPerSecond / other, 2)
        }
        return "e2e-h200 is read as the rate of decode steps: of whole runs the ratios would be \(ratios[0]) and "
            + "\(ratios[1]), because they are three quarters prefill or more, where the TPU is behind."
    }

    private static func text(_ value: Double, _ digits: Int = 1) -> String {
        let scale = digits == 2 ? 100.0 : 10
        return "\((value * scale).rounded() / scale)"
    }
}
