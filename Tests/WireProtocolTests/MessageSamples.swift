import ContentIdentity
import TestSupport
import WireProtocol

extension SeededRandom {
    mutating func ids(_ count: Int) -> [UInt32] {
        (0..<count).map { _ in UInt32.random(in: 0...UInt32.max, using: &self) }
    }

    mutating func text() -> String {
        let letters: [Character] = ["a", "ß", "語", "🙂", "\n", "\0", " "]
        return String(
            (0..<Int.random(in: 0...12, using: &self)).map { _ in letters.randomElement(using: &self) ?? "x" })
    }

    mutating func pairs(_ count: Int) -> [TokenLogprob] {
        ids(count).map { TokenLogprob(id: $0, logprob: Float.random(in: -50...0, using: &self)) }
    }

    mutating func sampling() -> SamplingOptions {
        var options = SamplingOptions()
        options.temperature = Float.random(in: 0...100, using: &self)
        options.topK = UInt32.random(in: 0...UInt32.max, using: &self)
        options.topP = Float.random(in: 0...1, using: &self)
        options.minP = Float.random(in: 0...1, using: &self)
        options.repetitionPenalty = Float.random(in: 0.01...100, using: &self)
        options.presencePenalty = Float.random(in: -100...100, using: &self)
        options.frequencyPenalty = Float.random(in: -100...100, using: &self)
        options.seed = next()
        options.logitBias = Set(ids(3)).map { TokenBias(id: $0, bias: Float.random(in: -100...100, using: &self)) }
        return options
    }
}

/// A kind of message, with its values hidden behind bytes.
struct MessageCodec: Sendable, CustomStringConvertible {
    let description: String
    /// Decodes and encodes again; throws what the decoder throws.
    let recode: @Sendable ([UInt8]) throws(WireError) -> [UInt8]
    /// A random valid message, and whether decoding its bytes gives it back.
    let sample: @Sendable (inout SeededRandom) throws(WireError) -> (bytes: [UInt8], isEqual: Bool)

    init<Message: WireMessage>(
        _ name: String, _ make: @escaping @Sendable (inout SeededRandom) -> Message
    ) {
        description = name
        recode = { (bytes) throws(WireError) in try Message(decoding: bytes).encoded() }
        sample = { (generator) throws(WireError) in
            let message = make(&generator)
            let bytes = message.encoded()
            return (bytes, try Message(decoding: bytes) == message)
        }
    }

    static let all: [MessageCodec] = [
        MessageCodec("Hello", hello),
        MessageCodec("Authenticate") { Authenticate(proof: $0.bytes(32)) },
        MessageCodec("Failure") { Failure(code: .limitExceeded, message: $0.text(), link: .handOff) },
        MessageCodec("Credit") { Credit(bytes: UInt32.random(in: 0...UInt32.max, using: &$0)) },
        MessageCodec("GenerateRequest", generateRequest),
        MessageCodec("GenerateItem") { GenerateItem(text: $0.text(), tokens: $0.pairs(2), top: $0.pairs(4)) },
        MessageCodec("GenerateEnd") {
            GenerateEnd(
                reason: .length, promptTokens: $0.ids(1)[0], completionTokens: $0.ids(1)[0], cachedTokens: $0.ids(1)[0])
        },
        MessageCodec("TokensRequest") {
            var request = TokensRequest(
                prompt: $0.ids(5), maxTokens: 262_144, sampling: $0.sampling(), topLogprobs: 20,
                stopTokenIDs: $0.ids(3), minimumTokens: UInt32.random(in: 0...262_144, using: &$0))
            (request.prefill, request.replay, request.priority) = ("prefill-0:7001", $0.ids(4), 7)
            request.wantsSigns = true
            return request
        },
        MessageCodec("PrefillRequest") {
            PrefillRequest(
                prompt: $0.ids(5), transfer: $0.next(), generation: $0.next(),
                layout: StateLayout(latentLayers: 10, latentFloats: 576, linearLayers: 70, stateFloats: 1 << 20),
                samples: false, sampling: $0.sampling(), topLogprobs: 20, priority: 3, banned: $0.ids(2))
        },
        MessageCodec("StateSegment") {
            StateSegment(kind: .latents, layer: $0.ids(1)[0], first: 64, count: 262_144, generation: $0.next())
        },
        MessageCodec("PrefillEnd") {
            PrefillEnd(
                token: TokensItem(token: $0.pairs(1)[0], top: $0.pairs(3)), segments: 80, queuedMicroseconds: $0.next(),
                computedMicroseconds: $0.next())
        },
        MessageCodec("TokensItem") { TokensItem(token: $0.pairs(1)[0], top: $0.pairs(3)) },
        MessageCodec("TokensPart with a token") {
            TokensPart.token(TokensItem(token: $0.pairs(1)[0], top: $0.pairs(3)))
        },
        MessageCodec("TokensPart without one") { TokensPart.sign(work: $0.next()) },
        MessageCodec("ExpertsRequest") {
            ExpertsRequest(
                layer: UInt32.random(in: 0...99, using: &$0), rowCount: 65536, hidden: 65536, pairCount: 4_194_304,
                sharedCount: UInt32.random(in: 0...65536, using: &$0), combinedTopK: 8)
        },
        MessageCodec("ExpertsReply") { ExpertsReply(simulatedPicoseconds: $0.next()) },
        MessageCodec("SampleRequest", sampleRequest),
        MessageCodec("SampleReply") {
            SampleReply(outcomes: [
                .token(TokensItem(token: $0.pairs(1)[0], top: $0.pairs(2))),
                .refused(Failure(code: .invalidArgument, message: $0.text())),
                .token(TokensItem(token: $0.pairs(1)[0], top: [])), .refused(Failure(code: .internal, message: "")),
            ])
        },
        MessageCodec("StatusReply") {
            StatusReply(
                counters: ["slots": Int64.min, "ä" + $0.text(): Int64(bitPattern: $0.next()), "": 0],
                missing: [
                    StatusReply.Missing(service: "sampler", reason: $0.text()),
                    StatusReply.Missing(service: "", reason: ""),
                ])
        },
    ]

    private static func hello(_ generator: inout SeededRandom) -> Hello {
        var hello = Hello()
        hello.role = "gateway"
        hello.instanceID = generator.text()
        hello.generation = generator.next()
        hello.fingerprint = generator.text()
        hello.layout = generator.text()
        hello.maximumBody = generator.ids(1)[0]
        hello.streamCredit = UInt32.random(in: 4096...UInt32.max, using: &generator)
        hello.nonce = generator.bytes(32)
        hello.proof = Bool.random(using: &generator) ? generator.bytes(32) : []
        if Bool.random(using: &generator) {
            let tensors = Dictionary(uniqueKeysWithValues: generator.ids(9).map { ("\($0)", ContentDigest(of: [7])) })
            let files = ["tokenizer.json": ContentDigest(of: generator.bytes(3))]
            hello.contents = ContentManifest(tensors: tensors, files: files).summary
        }
        return hello
    }

    private static func generateRequest(_ generator: inout SeededRandom) -> GenerateRequest {
        let prompts: [GenerateRequest.Prompt] = [
            .text(generator.text()), .tokens(generator.ids(7)),
            .chat([
                GenerateRequest.ChatTurn(role: "system", content: generator.text()),
                GenerateRequest.ChatTurn(role: "user", content: generator.text()),
            ]),
        ]
        var request = GenerateRequest(prompt: prompts[Int.random(in: 0..<3, using: &generator)])
        request.model = generator.text()
        request.maxTokens = UInt32.random(in: 1...262_144, using: &generator)
        request.sampling = generator.sampling()
        request.logprobs = Bool.random(using: &generator) ? 20 : nil
        request.stop = [generator.text(), generator.text()]
        request.stopTokenIDs = generator.ids(3)
        request.ignoresEnd = Bool.random(using: &generator)
        request.minimumTokens = UInt32.random(in: 0...request.maxTokens, using: &generator)
        return request
    }

    private static func sampleRequest(_ generator: inout SeededRandom) -> SampleRequest {
        let rows = (0..<3).map { index in
            SampleRow(
                sampling: generator.sampling(), position: generator.next(), topLogprobs: 20,
                history: generator.ids(index * 2), promptCount: UInt32(index), banned: generator.ids(index))
        }
        return SampleRequest(hidden: generator.ids(1)[0], rows: rows)
    }
}

/// What all messages have in common.
protocol WireMessage: Sendable, Equatable {
    init(decoding bytes: [UInt8]) throws(WireError)
    func encoded() -> [UInt8]
}

extension Hello: WireMessage {}
extension Authenticate: WireMessage {}
extension Failure: WireMessage {}
extension Credit: WireMessage {}
extension GenerateRequest: WireMessage {}
extension GenerateItem: WireMessage {}
extension GenerateEnd: WireMessage {}
extension TokensRequest: WireMessage {}
extension TokensItem: WireMessage {}
extension TokensPart: WireMessage {}
extension ExpertsRequest: WireMessage {}
extension ExpertsReply: WireMessage {}
extension SampleRequest: WireMessage {}
extension SampleReply: WireMessage {}
extension StatusReply: WireMessage {}
extension PrefillRequest: WireMessage {}
extension StateSegment: WireMessage {}
extension PrefillEnd: WireMessage {}
