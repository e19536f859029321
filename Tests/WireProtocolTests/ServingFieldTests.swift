import Serving
import Testing
import WireProtocol

/// A request says the same in every message that holds one.
@Suite struct ServingFieldTests {
    /// A field of `Sampling` with a value that it may have, and one beyond its range where there is one.
    struct Field: Sendable, CustomTestStringConvertible {
        let name: String
        let set: @Sendable (inout Sampling) -> Void
        var exceed: (@Sendable (inout Sampling) -> Void)?

        var testDescription: String { name }
    }

    static let fields: [Field] = [
        Field(name: "temperature", set: { $0.temperature = 0.5 }, exceed: { $0.temperature = 101 }),
        Field(name: "topK", set: { $0.topK = Int(UInt32.max) }),
        Field(name: "topP", set: { $0.topP = 0 }, exceed: { $0.topP = 1.5 }),
        Field(name: "minP", set: { $0.minP = 0.25 }, exceed: { $0.minP = .nan }),
        Field(name: "repetitionPenalty", set: { $0.repetitionPenalty = 0.01 }, exceed: { $0.repetitionPenalty = 0 }),
        Field(name: "presencePenalty", set: { $0.presencePenalty = -100 }, exceed: { $0.presencePenalty = 100.5 }),
        Field(name: "frequencyPenalty", set: { $0.frequencyPenalty = 100 }, exceed: { $0.frequencyPenalty = -101 }),
        Field(name: "seed", set: { $0.seed = .max }),
        Field(
            name: "logitBias", set: { $0.logitBias = [TokenBias(id: 7, bias: -100), TokenBias(id: 0, bias: 0.5)] },
            exceed: { $0.logitBias = [TokenBias(id: 7, bias: 1), TokenBias(id: 7, bias: 2)] }),
    ]

    /// A message that holds a request, or what one step needs of it.
    enum Message: CaseIterable {
        case generate, generateTokens, prefill, sample

        /// What is left of the request's sampling when it was sent so.
        func sent(_ request: Request) throws(WireError) -> Sampling {
            switch self {
            case .generate:
                let message = GenerateRequest(prompt: .text("x"), request: request)
                return try GenerateRequest(decoding: message.encoded()).request.sampling
            case .generateTokens:
                return try TokensRequest(decoding: TokensRequest(request).encoded()).request.sampling
            case .prefill:
                let layout = StateLayout(latentLayers: 1, latentFloats: 2, linearLayers: 3, stateFloats: 4)
                let message = PrefillRequest(request, transfer: 1, generation: 2, layout: layout)
                return try PrefillRequest(decoding: message.encoded()).request.sampling
            case .sample:
                let message = SampleRequest(hidden: 1, rows: [request.nextRow])
                return try SampleRequest(decoding: message.encoded()).rows[0].sampling
            }
        }
    }

    @Test func everyFieldOfSamplingIsTested() {
        #expect(Mirror(reflecting: Sampling()).children.compactMap(\.label) == Self.fields.map(\.name))
    }

    @Test(arguments: fields)
    func aFieldOfSamplingIsTheSameInEveryMessage(_ field: Field) throws {
        var request = Request(prompt: [1], maximumTokens: 1)
        field.set(&request.sampling)
        #expect(request.sampling != Sampling())
        for message in Message.allCases { #expect(try message.sent(request) == request.sampling, "\(message)") }
        guard let exceed = field.exceed else { return }
        exceed(&request.sampling)
        var sentences: Set<String> = []
        for message in Message.allCases {
            let error = #expect(throws: WireError.self) { _ = try message.sent(request) }
            if let error { sentences.insert(error.description) }
        }
        #expect(sentences.count == 1, "\(sentences)")
    }

    @Test func onlyAPromptAloneMayAskForNoToken() {
        func isRefused(_ maximum: Int, generated: [UInt32] = []) -> (tokens: Bool, prefill: Bool) {
            let request = Request(prompt: [1], generated: generated, maximumTokens: maximum)
            let layout = StateLayout(latentLayers: 1, latentFloats: 2, linearLayers: 3, stateFloats: 4)
            let prefill = PrefillRequest(request, transfer: 1, generation: 2, layout: layout)
            return (
                (try? TokensRequest(decoding: TokensRequest(request).encoded())) == nil,
                (try? PrefillRequest(decoding: prefill.encoded())) == nil
            )
        }
        #expect(isRefused(0) == (true, false))
        #expect(isRefused(1) == (false, false))
        #expect(isRefused(2) == (false, true))
        #expect(isRefused(1, generated: [2]) == (true, true))
        #expect(isRefused(0, generated: [2]) == (true, true))
    }

    @Test func whatIsNotForInstancesStaysAtTheGateway() throws {
        var request = Request(id: 9, prompt: [1, 2], maximumTokens: 4)
        (request.stopTexts, request.part) = (["x"], .decode)
        let sent = try TokensRequest(decoding: TokensRequest(request).encoded()).request
        #expect(sent == Request(prompt: [1, 2], maximumTokens: 4))
    }

    @Test func aRowIsRefusedByTheNameOfItsField() {
        func sentence(_ row: SampleRow) -> String? {
            do throws(WireError) {
                _ = try SampleRequest(decoding: SampleRequest(hidden: 1, rows: [SampleRow(), row]).encoded())
                return nil
            } catch { return error.description }
        }
        #expect(sentence(SampleRow(history: [1, 2], promptCount: 2)) == nil)
        #expect(sentence(SampleRow(history: [1, 2], promptCount: 3))?.hasPrefix("prompt count must be") == true)
        #expect(sentence(SampleRow(topLogprobs: 21))?.hasPrefix("logprobs must be") == true)
        #expect(sentence(SampleRow(banned: [UInt32](0...128)))?.hasPrefix("banned has 129 elements") == true)
        #expect(throws: WireError("rows are missing: a call has from 1 to 4096")) {
            try SampleRequest(decoding: SampleRequest(hidden: 1, rows: []).encoded())
        }
        let many = SampleRequest(hidden: 1, rows: [SampleRow](repeating: SampleRow(), count: 4097))
        #expect(throws: WireError("rows has more than 4096 elements")) { try SampleRequest(decoding: many.encoded()) }
    }

    @Test func alternativesAreAsManyForEachTokenOfAnItem() throws {
        var writer = FieldWriter()
        writer.put(2, array: [UInt32](repeating: 1, count: 4))
        writer.put(3, array: [UInt32](repeating: 1, count: 6))
        #expect(throws: WireError("top logprobs are not as many for each token")) {
            try GenerateItem(decoding: writer.bytes)
        }
    }

    @Test func aCapacityIsFiveNumbersThatAreNotTooLarge() throws {
        func status(_ words: [UInt64]) throws(WireError) -> StatusReply {
            var writer = FieldWriter()
            writer.put(4, array: words)
            return try StatusReply(decoding: writer.bytes)
        }
        #expect(try status([1, 2, 3, 4, 5]).capacity?.requestTokens == 2, "one request has at most all of the tokens")
        #expect(throws: WireError.self) { try status([1, 2, 3, 4]) }
        #expect(throws: WireError.self) { try status([1, 2, 3, 4, 5, 6]) }
        #expect(throws: WireError.self) { try status([1, .max, 3, 4, 5]) }
    }

    @Test func unknownFieldsBetweenKnownOnesMustBeUnderstoodToo() {
        var writer = FieldWriter()
        writer.put(1, array: [UInt32(1)])
        writer.put(2, UInt32(1))
        writer.put(0x8000 | 20, UInt8(1))
        #expect(throws: WireError("metadata field 20 must be understood and is unknown")) {
            try TokensRequest(decoding: writer.bytes)
        }
    }
}
