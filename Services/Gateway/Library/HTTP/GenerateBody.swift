import WireProtocol

extension CompletionJob {
    private static let generateRules: [String: FieldRule] = [
        "text": .read, "input_ids": .read, "sampling_params": .read, "stream": .read, "return_logprob": .read,
        "priority": .read,
        "top_logprobs_num": .read, "rid": .harmless, "model": .read, "logprob_start_len": .read,
        "return_text_in_logprobs": .harmless, "return_routed_experts": .only([.bool(false)]),
        "return_hidden_states": .only([.bool(false)]), "lora_path": .unsupported, "image_data": .unsupported,
        "video_data": .unsupported, "audio_data": .unsupported, "input_embeds": .unsupported,
        "token_ids_logprob": .read, "session_params": .unsupported, "custom_logit_processor": .unsupported,
    ]

    private static let samplingRules: [String: FieldRule] = [
        "max_new_tokens": .read, "min_new_tokens": .read, "temperature": .read, "top_p": .read, "top_k": .read,
        "min_p": .read, "frequency_penalty": .read, "presence_penalty": .read, "repetition_penalty": .read,
        "stop": .read, "stop_token_ids": .read, "ignore_eos": .read, "n": .read, "seed": .read,
        "sampling_seed": .read, "logit_bias": .read, "skip_special_tokens": .only([.bool(true)]),
        "spaces_between_special_tokens": .harmless, "no_stop_trim": .only([.bool(false)]),
        "json_schema": .unsupported, "regex": .unsupported, "ebnf": .unsupported, "structural_tag": .unsupported,
        "stop_regex": .unsupported, "custom_params": .unsupported,
    ]

    /// The job in a body of `/generate`, as SGLang's own interface has it.
    package static func generate(_ body: [UInt8]) throws(APIError) -> CompletionJob {
        let fields = try RequestFields(RequestFields.document(body))
        try fields.check(generateRules)
        guard fields["text"] == nil || fields["input_ids"] == nil else {
            throw fields.refusal("text", "and input_ids are both given")
        }
        let (prompts, isBatch) = try prompts(fields, text: "text", ids: "input_ids")
        var job = CompletionJob(.generate(isBatch: isBatch), prompts: prompts)
        job.template.model = try fields.text("model") ?? ""
        job.streams = try fields.flag("stream")
        job.priority = try priority(fields, lowerIsFirst: false)
        // Without return_logprob the other three mean nothing, and SGLang's tools send them all the same.
        if try fields.flag("return_logprob") {
            try fields.only("logprob_start_len", [.number("-1")])
            try fields.only("token_ids_logprob", [])
            job.template.logprobs = UInt8(
                try fields.integer("top_logprobs_num", in: 0...Int(MessageLimits.topLogprobs)) ?? 0)
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
        try parameters.check(Self.samplingRules)
        try template.readSampling(parameters, minimumTokensName: "min_new_tokens")
        if let seed = try template.seed(parameters, "sampling_seed") { template.sampling.seed = seed }
        maximumTokens = try parameters.integer("max_new_tokens", in: 1...Int(MessageLimits.generatedTokens)) ?? 128
        choicesPerPrompt = try parameters.integer("n", in: 1...Self.maximumChoices) ?? 1
        guard prompts.count * choicesPerPrompt <= Self.maximumChoices else {
            throw parameters.refusal(
                "n", "times the number of prompts (\(prompts.count)) is more than \(Self.maximumChoices)")
        }
        if choicesPerPrompt > 1 { interface = .generate(isBatch: true) }
    }
}
