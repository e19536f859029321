import Foundation
import Serving
import Testing
import WireProtocol

/// Frames in `Protocol/frames` that every implementation is tested against. With `IRONLING_WRITE_FRAMES=1` they are
/// written anew; a version should never need that but for added files.
@Suite struct GoldenFrameTests {
    private static let directory = URL(fileURLWithPath: #filePath)
        .deletingLastPathComponent().deletingLastPathComponent().deletingLastPathComponent()
        .appendingPathComponent("Protocol/frames")

    @Test(arguments: Self.frames.keys.sorted())
    func frameIsAsWritten(_ name: String) throws {
        let file = Self.directory.appendingPathComponent(name + ".bin")
        let bytes = try #require(Self.frames[name])
        if ProcessInfo.processInfo.environment["IRONLING_WRITE_FRAMES"] == "1" { try Data(bytes).write(to: file) }
        #expect(try Array(Data(contentsOf: file)) == bytes)
    }

    @Test func noOtherFiles() throws {
        let names = try FileManager.default.contentsOfDirectory(atPath: Self.directory.path)
        #expect(Set(names) == Set(Self.frames.keys.map { $0 + ".bin" }))
    }

    @Test func examplesOfTheSpecification() {
        #expect(Self.frames["status-request"]?.suffix(4) == [0x42, 0x07, 0x87, 0x5A])
        #expect(Self.frames["credit"]?[56..<64] == [0xBB, 0xB5, 0x21, 0x7D, 0x58, 0x84, 0xE2, 0x48])
    }

    static let frames: [String: [UInt8]] = [
        "hello": encodeFrame(FrameHeader(kind: .hello), hello.encoded(), []),
        "authenticate": encodeFrame(
            FrameHeader(kind: .authenticate), Authenticate(proof: Array(64..<96)).encoded(), []),
        "status-request": request(1, .status, 10_000_000, []),
        "status-reply": encodeFrame(
            FrameHeader(kind: .response, requestID: 1),
            StatusReply(counters: ["connections": 2, "requests": 1]).encoded(), []),
        "generate-request": request(2, .generate, 60_000_000, generate.encoded()),
        "generate-item": encodeFrame(FrameHeader(kind: .item, requestID: 2), item.encoded(), []),
        "generate-end": encodeFrame(
            FrameHeader(kind: .end, requestID: 2),
            End(reason: .length, promptTokens: 3, completionTokens: 4).encoded(), []),
        "error": encodeFrame(
            FrameHeader(kind: .error, requestID: 2),
            Failure(code: .notAccepted, message: "the service is draining").encoded(), []),
        "error-link": encodeFrame(
            FrameHeader(kind: .error, requestID: 2),
            Failure(code: .unavailable, message: "no sampler can be called", link: .sampler).encoded(), []),
        "status-missing": encodeFrame(
            FrameHeader(kind: .response, requestID: 1),
            StatusReply(
                counters: ["slots": 32],
                missing: [.init(service: "sampler", reason: "127.0.0.1:7003: connection refused")],
                capacity: Capacity(
                    requests: 32, tokens: 65536, requestTokens: 8192, quarantinedRequests: 1, quarantinedTokens: 64)
            ).encoded(), []),
        "status-rows": encodeFrame(
            FrameHeader(kind: .response, requestID: 1), StatusReply(counters: [:], maximumRows: 256).encoded(), []),
        "tokens-request": request(3, .generateTokens, 60_000_000, tokens.encoded()),
        "tokens-item": encodeFrame(FrameHeader(kind: .item, requestID: 3), item.tokens[0].encoded(), []),
        "prefill-request": request(
            4, .prefill, 60_000_000,
            PrefillRequest(
                Request(prompt: [1, 2, 3], maximumTokens: 0), transfer: 7, generation: 8,
                layout: StateLayout(latentLayers: 2, latentFloats: 96, linearLayers: 6, stateFloats: 4096)
            ).encoded()),
        "sample-request": request(
            5, .sample, 10_000_000,
            SampleRequest(hidden: 64, rows: [SampleRow(position: 3), tokens.request.nextRow]).encoded()),
        "tokens-sign": encodeFrame(
            FrameHeader(kind: .item, requestID: 2), TokensPart.sign(work: 640).encoded(), []),
        "cancel": encodeFrame(FrameHeader(kind: .cancel, requestID: 2), [], []),
        "credit": encodeFrame(FrameHeader(kind: .credit, requestID: 7), Credit(bytes: 65536).encoded(), []),
        "ping": encodeFrame(FrameHeader(kind: .ping), [], []),
        "pong": encodeFrame(FrameHeader(kind: .pong), [], []),
        "drain": encodeFrame(FrameHeader(kind: .drain), [], []),
        "segment": segment,
    ]

    private static var hello: Hello {
        var hello = Hello()
        hello.instanceID = "example"
        hello.nonce = Array(0..<32)
        return hello
    }

    private static var generate: GenerateRequest {
        var request = GenerateRequest(prompt: .tokens([1, 2, 3]))
        request.model = "ling"
        request.ignoresEnd = true
        request.request.maximumTokens = 4
        request.request.sampling.temperature = 0.5
        request.request.sampling.seed = 42
        request.request.topLogprobs = 2
        request.request.stopTexts = ["\n\n", "ende"]
        request.request.stopTokens = [9]
        return request
    }

    /// With all that there is.
    private static var tokens: TokensRequest {
        var request = Request(prompt: [1, 2, 3], generated: [4, 5], maximumTokens: 8)
        request.topLogprobs = 2
        (request.stopTokens, request.minimumTokens, request.priority) = ([9, 10], 3, 128)
        request.sampling.temperature = 0.5
        (request.sampling.topK, request.sampling.topP, request.sampling.minP) = (40, 0.75, 0.125)
        request.sampling.repetitionPenalty = 1.5
        (request.sampling.presencePenalty, request.sampling.frequencyPenalty) = (0.25, -0.25)
        request.sampling.seed = 42
        request.sampling.logitBias = [TokenBias(id: 6, bias: -100)]
        return TokensRequest(request, prefill: "prefill-0:7001", wantsSigns: true)
    }

    private static var item: GenerateItem {
        GenerateItem(
            text: "hé",
            tokens: [Token(id: 7, logprob: -0.5, top: [.init(id: 7, logprob: -0.5), .init(id: 8, logprob: -1.5)])])
    }

    private static var segment: [UInt8] {
        var header = FrameHeader(kind: .response, requestID: 3)
        header.flags = .more
        header.messageBodyLength = 12
        header.traceHigh = 0x0123_4567_89AB_CDEF
        header.traceLow = 0xFEDC_BA98_7654_3210
        return encodeFrame(header, [], [0, 0, 0x80, 0x3F, 0, 0, 0, 0x40])
    }

    private static func request(_ id: UInt64, _ method: Method, _ deadline: UInt64, _ metadata: [UInt8]) -> [UInt8] {
        var header = FrameHeader(kind: .request, requestID: id)
        header.method = method
        header.deadlineMicroseconds = deadline
        return encodeFrame(header, metadata, [])
    }
}
