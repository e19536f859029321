import WireProtocol

extension CompletionJob {
    /// The job in a body of `/generate`, as SGLang's own interface has it.
    package static func generate(_ body: [UInt8]) throws(APIError) -> CompletionJob {
        let fields = try RequestFields(RequestFields.document(body))
        var counts = FieldCounts()
        try fields.check(.generate, &counts)
        guard fields["text"] == nil || fields["input_ids"] == nil else {
            throw fields.refusal("text", "and input_ids are both given")
        }
        let (prompts, isBatch) = try prompts(fields, text: "text", ids: "input_ids")
        let (name, isText) = fields["text"] == nil ? ("input_ids", false) : ("text", true)
        for prompt in prompts {
            switch prompt {
            case .tokens where isText: throw fields.refusal(name, "holds token ids, which input_ids takes")
            case .text where !isText: throw fields.refusal(name, "holds text, which text takes")
            default: break
            }
        }
        var job = CompletionJob(.generate(isBatch: isBatch), prompts: prompts)
        job.fields = counts
        job.model = try fields.text("model") ?? ""
        job.streams = try fields.flag("stream")
        job.request.priority = try priority(fields, lowerIsFirst: false)
        // Without return_logprob the other three mean nothing, and SGLang's tools send them all the same.
        if try fields.flag("return_logprob") {
            try fields.only("logprob_start_len", [.number("-1")])
            try fields.only("token_ids_logprob", [])
            job.request.topLogprobs = try fields.integer("top_logprobs_num", in: 0...MessageLimits.topLogprobs) ?? 0
        }
        try job.readSamplingParameters(fields)
        guard !job.streams || job.prompts.count * job.choicesPerPrompt == 1 else {
            throw fields.refusal("stream", "is supported only for one prompt and one answer")
        }
        return job
    }

    private mutating func readSamplingParameters(_ fields: RequestFields) throws(APIError) {
        let none = try RequestFields(.object([]), path: "sampling_params.")
        let parameters = try fields.object("sampling_params") ?? none
        try parameters.check(.samplingParameters, &self.fields)
        try readSampling(parameters, minimumTokensName: "min_new_tokens")
        if let seed = try Self.seed(parameters, "sampling_seed") { request.sampling.seed = seed }
        maximumTokens = try parameters.integer("max_new_tokens", in: 1...MessageLimits.generatedTokens) ?? 128
        choicesPerPrompt = try parameters.integer("n", in: 1...Self.maximumChoices) ?? 1
        guard prompts.count * choicesPerPrompt <= Self.maximumChoices else {
            throw parameters.refusal(
                "n", "times the number of prompts (\(prompts.count)) is more than \(Self.maximumChoices)")
        }
        if choicesPerPrompt > 1 { interface = .generate(isBatch: true) }
    }
}
