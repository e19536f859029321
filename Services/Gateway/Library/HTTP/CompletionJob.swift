import GatewayCore
import Serving
import WireProtocol

/// What an HTTP client asks to be completed, whichever interface it speaks, and the answers to it.
package struct CompletionJob: Sendable {
    /// The interface, which decides the shape of the answer.
    package enum Interface: Sendable, Equatable {
        /// `/v1/completions`
        case completions
        /// `/v1/chat/completions`
        case chat
        /// `/generate`; a batch is answered by an array.
        case generate(isBatch: Bool)
    }

    /// Priority of a request that asks for none.
    package static let plainPriority = 128
    /// Answers to one request: prompts times choices.
    package static let maximumChoices = 32
    /// Reads a body into a job whose prompts are not tokenized yet.
    package typealias Parser = @Sendable ([UInt8]) throws(APIError) -> CompletionJob

    /// The interface.
    package var interface: Interface
    /// One or more prompts.
    package var prompts: [GenerateRequest.Prompt]
    /// What is asked for after each of them.
    package var request = Request(prompt: [])
    /// Model name; empty means the one that is served.
    package var model = ""
    /// True to go on past the model's own end tokens.
    package var ignoresEnd = false
    /// Tokens to generate; nil for what context and instances have room for after the prompt.
    package var maximumTokens: Int?
    /// Answers to each prompt.
    package var choicesPerPrompt = 1
    /// True for server-sent events.
    package var streams = false
    /// True to end a stream with an event that holds the usage.
    package var includesUsage = false
    /// True to put the usage so far into each event.
    package var continuousUsage = false
    /// True to have the model think before it answers a conversation.
    package var thinks = false
    /// False to take a text as it is, without what the checkpoint adds around prompts.
    package var addsSpecialTokens = true
    /// Which of the fields that have a default of the checkpoint the request has.
    package var saidSampling: Set<String> = []
    /// Fields that were accepted and are not used.
    package var fields = FieldCounts()
    /// True to begin each answer with its prompt.
    package var echoes = false
    /// One for each answer, in order, once the prompts are tokenized.
    package var completions: [Completion] = []

    /// A job that asks for nothing special.
    package init(_ interface: Interface, prompts: [GenerateRequest.Prompt]) {
        self.interface = interface
        self.prompts = prompts
        request.priority = Self.plainPriority
    }

    /// Tokens of all prompts, each counted once.
    package var promptTokens: Int { completions.lazy.filter(\.isFirstOfPrompt).map(\.request.promptCount).reduce(0, +) }

    /// What of its answers has to be kept until they are written.
    package var keeping: Completion.Keeping {
        guard streams else { return .items }
        if case .generate = interface { return .text }
        return .counts
    }

    /// Whether the answer carries logprobs.
    package var wantsLogprobs: Bool { request.topLogprobs != nil }
}

extension CompletionJob {
    /// Reads what both of OpenAI's interfaces have in common.
    mutating func readCommon(_ fields: RequestFields) throws(APIError) {
        model = try fields.text("model") ?? ""
        try readSampling(fields, minimumTokensName: "min_tokens")
        maximumTokens = try Self.maximumTokens(fields)
        choicesPerPrompt = try fields.integer("n", in: 1...Self.maximumChoices) ?? 1
        guard prompts.count * choicesPerPrompt <= Self.maximumChoices else {
            throw fields.refusal(
                "n", "times the number of prompts (\(prompts.count)) is more than \(Self.maximumChoices)")
        }
        streams = try fields.flag("stream")
        request.cacheSalt = try fields.text("cache_salt", limit: MessageLimits.saltBytes) ?? ""
        request.priority = try Self.priority(fields, lowerIsFirst: true)
        guard let options = try fields.object("stream_options") else { return }
        guard streams else { throw fields.refusal("stream_options", "needs stream to be true") }
        try options.check(.streamOptions, &self.fields)
        continuousUsage = try options.flag("continuous_usage_stats")
        includesUsage = try options.flag("include_usage")
    }

    /// `priority` from -100 to 100, 0 without it. For vLLM's clients, who use OpenAI's interfaces, lower ones go first; for
    /// SGLang's, who use `/generate`, higher ones do.
    static func priority(_ fields: RequestFields, lowerIsFirst: Bool) throws(APIError) -> Int {
        let given = try fields.integer("priority", in: -100...100) ?? 0
        return plainPriority + (lowerIsFirst ? -given : given)
    }

    private static func maximumTokens(_ fields: RequestFields) throws(APIError) -> Int? {
        let range = 1...MessageLimits.generatedTokens
        let old = try fields.integer("max_tokens", in: range)
        let new = try fields.integer("max_completion_tokens", in: range)
        if let old, let new, old != new {
            throw fields.refusal("max_tokens", "(\(old)) and max_completion_tokens (\(new)) contradict each other")
        }
        return new ?? old
    }

    /// Reads the fields that decide which token is next and when to stop, and notes which of them are there.
    mutating func readSampling(_ fields: RequestFields, minimumTokensName: String) throws(APIError) {
        var sampling = Sampling()
        sampling.temperature = try fields.number("temperature", in: 0...100) ?? 1
        sampling.topP = try fields.number("top_p", in: 0...1) ?? 1
        sampling.topK = max(0, try fields.integer("top_k", in: -1...1_000_000) ?? 0)
        sampling.minP = try fields.number("min_p", in: 0...1) ?? 0
        sampling.repetitionPenalty = try fields.number("repetition_penalty", in: 0.01...100) ?? 1
        sampling.presencePenalty = try fields.number("presence_penalty", in: -100...100) ?? 0
        sampling.frequencyPenalty = try fields.number("frequency_penalty", in: -100...100) ?? 0
        sampling.logitBias = try Self.logitBias(fields)
        request.stopTexts = try fields.texts(
            "stop", limit: MessageLimits.stopStrings, byteLimit: MessageLimits.stopBytes)
        request.stopTokens = try fields.tokens("stop_token_ids", limit: MessageLimits.stopTokens) ?? []
        ignoresEnd = try fields.flag("ignore_eos")
        request.minimumTokens = try fields.integer(minimumTokensName, in: 0...MessageLimits.generatedTokens) ?? 0
        sampling.seed = try Self.seed(fields, "seed") ?? UInt64.random(in: 0...UInt64.max)
        request.sampling = sampling
        saidSampling = Set(RequestDefaults.fields.filter { fields[$0] != nil })
    }

    /// A seed may be any whole number of 64 bits, with a sign or without.
    static func seed(_ fields: RequestFields, _ name: String) throws(APIError) -> UInt64? {
        guard let value = fields[name] else { return nil }
        if case .number(let spelling) = value, let large = UInt64(spelling) { return large }
        guard let number = RequestFields.integer(value) else {
            throw fields.refusal(name, "must be a whole number of 64 bits")
        }
        return UInt64(bitPattern: Int64(number))
    }

    private static func logitBias(_ fields: RequestFields) throws(APIError) -> [TokenBias] {
        guard let value = fields["logit_bias"] else { return [] }
        guard case .object(let members) = value, members.count <= MessageLimits.biasedTokens else {
            throw fields.refusal(
                "logit_bias", "must be an object of at most \(MessageLimits.biasedTokens) token ids and biases")
        }
        var biases: [TokenBias] = []
        for member in members {
            guard let id = UInt32(member.name), let bias = RequestFields.number(member.value),
                (-100...100).contains(bias)
            else {
                throw fields.refusal(
                    "logit_bias",
                    "holds \"\(member.name.prefix(32))\": \(member.value.text.prefix(32)); wanted are a token id as a "
                        + "string and a bias from -100 to 100")
            }
            biases.append(TokenBias(id: id, bias: Float(bias)))
        }
        guard Set(biases.map(\.id)).count == biases.count else {
            throw fields.refusal("logit_bias", "names a token id twice")
        }
        return biases
    }
}
