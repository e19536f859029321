import ContentIdentity
import Serving
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

    /// A token with `count` alternatives.
    mutating func token(_ count: Int) -> Token {
        func logprob(_ random: inout Self) -> Float { Float.random(in: -50...0, using: &random) }
        let top = ids(count).map { Token.Alternative(id: $0, logprob: logprob(&self)) }
        return Token(id: ids(1)[0], logprob: logprob(&self), top: top)
    }

    mutating func sampling() -> Sampling {
        var sampling = Sampling()
        sampling.temperature = Float.random(in: 0...100, using: &self)
        sampling.topK = Int.random(in: 0...Int(UInt32.max), using: &self)
        sampling.topP = Float.random(in: 0...1, using: &self)
        sampling.minP = Float.random(in: 0...1, using: &self)
        sampling.repetitionPenalty = Float.random(in: 0.01...100, using: &self)
        sampling.presencePenalty = Float.random(in: -100...100, using: &self)
        sampling.frequencyPenalty = Float.random(in: -100...100, using: &self)
        sampling.seed = next()
        sampling.logitBias = Set(ids(3)).map { TokenBias(id: $0, bias: Float.random(in: -100...100, using: &self)) }
        return sampling
    }

    /// What an instance is asked, with every field that it is sent; half of the time with few of them.
    mutating func request(maximumTokens: Int = 262_144, generated: Int = 4) -> Request {
        var request = Request(prompt: ids(5), generated: ids(generated), maximumTokens: maximumTokens)
        guard Bool.random(using: &self) else { return request }
        request.topLogprobs = Int.random(in: 0...20, using: &self)
        request.stopTokens = ids(3)
        request.priority = Int.random(in: 0...255, using: &self)
        request.minimumTokens = Int.random(in: 0...maximumTokens, using: &self)
        request.sampling = sampling()
        request.cacheSalt = text()
        return request
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
        MessageCodec("GenerateItem") { GenerateItem(text: $0.text(), tokens: [$0.token(2), $0.token(2)]) },
        MessageCodec("End") {
            let counts = $0.ids(3).map { Int($0) }
            return End(
                reason: .length, promptTokens: counts[0], completionTokens: counts[1], cachedTokens: counts[2])
        },
        MessageCodec("TokensRequest") {
            TokensRequest($0.request(), prefill: "prefill-0:7001", wantsSigns: Bool.random(using: &$0))
        },
        MessageCodec("PrefillRequest") {
            PrefillRequest(
                $0.request(maximumTokens: Int.random(in: 0...1, using: &$0), generated: 0), transfer: $0.next(),
                generation: $0.next(),
                layout: StateLayout(latentLayers: 10, latentFloats: 576, linearLayers: 70, stateFloats: 1 << 20))
        },
        MessageCodec("StateSegment") {
            StateSegment(kind: .latents, layer: $0.ids(1)[0], first: 64, count: 262_144, generation: $0.next())
        },
        MessageCodec("PrefillEnd") {
            PrefillEnd(
                token: $0.token(3), segments: 80, cachedTokens: 77, queuedMicroseconds: $0.next(),
                computedMicroseconds: $0.next())
        },
        MessageCodec("Token") { $0.token(3) },
        MessageCodec("TokensPart with a token") { TokensPart.token($0.token(3), cached: 64) },
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
                .token($0.token(2)),
                .refused(Failure(code: .invalidArgument, message: $0.text())),
                .token($0.token(0)), .refused(Failure(code: .internal, message: "")),
            ])
        },
        MessageCodec("StatusReply") {
            StatusReply(
                counters: ["slots": Int64.min, "ä" + $0.text(): Int64(bitPattern: $0.next()), "": 0],
                missing: [
                    StatusReply.Missing(service: "sampler", reason: $0.text()),
                    StatusReply.Missing(service: "", reason: ""),
                ],
                capacity: Capacity(
                    requests: Int.random(in: 0...4096, using: &$0), tokens: 1 << 40, requestTokens: 640,
                    quarantinedRequests: 1, quarantinedTokens: 64),
                maximumRows: Int.random(in: 0...4096, using: &$0))
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
        request.ignoresEnd = Bool.random(using: &generator)
        let maximum = Int.random(in: 1...262_144, using: &generator)
        request.request = generator.request(maximumTokens: maximum, generated: 0).with(prompt: [])
        request.request.priority = 0
        request.request.stopTexts = [generator.text(), generator.text()]
        return request
    }

    private static func sampleRequest(_ generator: inout SeededRandom) -> SampleRequest {
        let rows = (0..<3).map { index in
            SampleRow(
                sampling: index == 0 ? Sampling() : generator.sampling(), position: generator.next(),
                topLogprobs: Int.random(in: 0...20, using: &generator), history: generator.ids(index * 2),
                promptCount: index, banned: generator.ids(index))
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
extension End: WireMessage {}
extension TokensRequest: WireMessage {}
extension Token: WireMessage {}
extension TokensPart: WireMessage {}
extension ExpertsRequest: WireMessage {}
extension ExpertsReply: WireMessage {}
extension SampleRequest: WireMessage {}
extension SampleReply: WireMessage {}
extension StatusReply: WireMessage {}
extension PrefillRequest: WireMessage {}
extension StateSegment: WireMessage {}
extension PrefillEnd: WireMessage {}
