import EventLoop
import Foundation
import RPC
import Serving
import Synchronization
import Testing
import WireProtocol

/// What broken and hostile clients do to running services: each is refused or bounded, others do not notice, and when
/// it is over nothing is left of it.
@Suite(.serialized, .timeLimit(.minutes(3))) struct BadInputTests {
    /// Asks for the same completion again and again while `body` runs; every answer must be whole and the same.
    private func withWitness(_ set: RunningSet, _ body: () async throws -> Void) async throws {
        let isOver = Flag()
        let witness = Task {
            try await set.withClient { client in
                var answers: [[Token]] = []
                repeat {
                    answers.append(try await tokens(client, request([1, 2, 3], 12)))
                } while !isOver.isSet || answers.count < 2
                return answers
            }
        }
        do { try await body() } catch {
            isOver.set()
            _ = try? await witness.value
            throw error
        }
        isOver.set()
        let answers = try await witness.value
        #expect(answers.count > 1 && answers.allSatisfy { $0.count == 12 && $0 == answers[0] })
    }

    /// Starts services, lets `body` have a go at them, and compares what they hold before and after.
    private func check(_ body: (RunningSet) async throws -> Void) async throws {
        RawSocket.raiseDescriptorLimit()
        let set = try await RunningSet("base", ["--byte-tokenizer"], servesMetrics: true)
        // What is opened once, at a first request, belongs to neither side.
        try await withWitness(set) { _ = try post(set, [UInt8](repeating: UInt8(ascii: "["), count: 20_000)) }
        let before = try await settled(set)
        try await withWitness(set) { try await body(set) }
        var after = try ServiceState(set)
        let isClean = try await ServiceProcesses.wait(seconds: 30) {
            after = try ServiceState(set)
            return after == before
        }
        #expect(isClean, "left over: \(after.difference(from: before))")
        #expect(set.stop() == 0)
    }

    /// The state once it is the same twice: the connection of the last witness may still be closing.
    private func settled(_ set: RunningSet) async throws -> ServiceState {
        var last = try ServiceState(set)
        _ = try await ServiceProcesses.wait {
            let next = try ServiceState(set)
            defer { last = next }
            return next == last
        }
        return last
    }

    private func post(_ set: RunningSet, _ body: [UInt8], close: Bool = true) throws -> String {
        let socket = try #require(RawSocket(port: set.httpPort))
        let closing = close ? "Connection: close\r\n" : ""
        socket.send("POST /v1/completions HTTP/1.1\r\nHost: x\r\n\(closing)Content-Length: \(body.count)\r\n\r\n")
        socket.send(body)
        return socket.receive(until: "}}")
    }

    @Test func requestsThatMakeNoSenseOverHTTP() async throws {
        try await check { set in
            let long = String(repeating: "1,", count: 600) + "1"
            let bodies: [(body: String, word: String)] = [
                ("{\"prompt\":\"\"}", "prompt is empty"),
                ("{\"prompt\":[]}", "prompt is empty"), ("{}", "prompt"), ("{\"prompt\":[\(long)]}", "context"),
                ("{\"prompt\":[1],\"max_tokens\":512}", "context"), ("{\"prompt\":[256]}", "256"),
                ("{\"prompt\":[4294967296]}", "token id"), ("{\"prompt\":[-1]}", "token id"),
                ("{\"prompt\":[1.5]}", "token id"), ("{\"prompt\":[1e300]}", "token id"),
                ("{\"prompt\":[\"a\",1]}", "prompt"), ("{\"prompt\":{\"a\":1}}", "prompt"),
                ("{\"prompt\":[1],\"temperature\":NaN}", "JSON"),
                ("{\"prompt\":[1],\"temperature\":1e999}", "temperature"),
                ("{\"prompt\":[1],\"temperature\":-0.1}", "temperature"),
                ("{\"prompt\":[1],\"temperature\":\"hot\"}", "temperature"),
                ("{\"prompt\":[1],\"top_p\":1.1}", "top_p"), ("{\"prompt\":[1],\"min_p\":-1}", "min_p"),
                ("{\"prompt\":[1],\"top_k\":-2}", "top_k"), ("{\"prompt\":[1],\"top_k\":1.5}", "top_k"),
                ("{\"prompt\":[1],\"repetition_penalty\":0}", "repetition_penalty"),
                ("{\"prompt\":[1],\"presence_penalty\":1e38}", "presence_penalty"),
                ("{\"prompt\":[1],\"max_tokens\":0}", "max_tokens"),
                ("{\"prompt\":[1],\"max_tokens\":1e30}", "max_tokens"),
                ("{\"prompt\":[1],\"logprobs\":21}", "logprobs"), ("{\"prompt\":[1],\"seed\":1.5}", "seed"),
                ("{\"prompt\":[1],\"n\":0}", "n must"), ("{\"prompt\":[1],\"stop\":[1]}", "stop"),
                ("{\"prompt\":[1],\"stream\":1.5}", "stream"),
                ("{\"prompt\":[1],\"stop\":[\(Array(repeating: "\"x\"", count: 17).joined(separator: ","))]}", "stop"),
                (String(repeating: "[", count: 100_000), "JSON"), ("", "JSON"), ("[]", "JSON"), ("{\"prompt\"", "JSON"),
            ]
            for (body, word) in bodies {
                let answer = try post(set, Array(body.utf8))
                #expect(
                    answer.hasPrefix("HTTP/1.1 400 ") && answer.contains(word) && answer.contains("\"error\""),
                    "\(body.prefix(80)): \(answer.prefix(300))")
            }
            let other = try post(set, Array("{\"prompt\":[1],\"model\":\"nobody\"}".utf8))
            #expect(other.hasPrefix("HTTP/1.1 404 ") && other.contains("nobody"), "\(other)")
            for bytes in [Array("{\"prompt\":\"".utf8) + [0xFF, 0xC3] + Array("\"}".utf8), [0xFF, 0xFE, 0, 0]] {
                let answer = try post(set, bytes)
                #expect(answer.hasPrefix("HTTP/1.1 400 "), "\(answer.prefix(300))")
            }
            let large = try #require(RawSocket(port: set.httpPort))
            large.send("POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 8388609\r\n\r\n")
            #expect(large.receive().hasPrefix("HTTP/1.1 413 "))
            let chunked = try #require(RawSocket(port: set.httpPort))
            chunked.send("POST /v1/completions HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
            let chunk = Array("100000\r\n".utf8) + [UInt8](repeating: 32, count: 1 << 20) + Array("\r\n".utf8)
            for _ in 0..<10 where chunked.send(chunk) {}
            #expect(chunked.receive().hasPrefix("HTTP/1.1 413 "))
            for (head, status) in [
                ("GET / HTTP/1.1\r\nHost: x\r\n\r\n", "404"), ("DELETE /v1/models HTTP/1.1\r\nHost: x\r\n\r\n", "405"),
                ("GET /metrics HTTP/9.9\r\n\r\n", "400"), ("\u{0}\u{1}\u{2}\r\n\r\n", "400"),
                ("GET / HTTP/1.1\r\nHost: x\r\nX: \(String(repeating: "x", count: 70_000))\r\n\r\n", "431"),
            ] {
                let socket = try #require(RawSocket(port: set.httpPort))
                socket.send(head)
                #expect(socket.receive(until: "}").hasPrefix("HTTP/1.1 \(status) "), "\(head.prefix(30))")
            }
        }
    }

    @Test func requestsThatMakeNoSenseOverTheBinaryPort() async throws {
        try await check { set in
            try await set.withClient { client in
                for (name, word, metadata) in Self.binaryRefusals() {
                    await #expect("\(name)") {
                        let stream = try await client.stream(
                            .generate, RPCPayload(metadata: metadata), timeoutMicroseconds: 10_000_000)
                        while try await stream.next() != nil {}
                    } throws: { error in
                        let refusal = error as? RPCError
                        return (refusal?.code == .invalidArgument || refusal?.code == .limitExceeded)
                            && refusal?.message.contains(word) == true
                    }
                }
                await #expect {
                    _ = try await client.call(
                        .expertsForward, RPCPayload(), timeoutMicroseconds: 10_000_000)
                } throws: { ($0 as? RPCError)?.code == .unknownMethod }
                await #expect {
                    _ = try await client.call(
                        .generate, RPCPayload(body: AlignedBuffer(count: 2 << 20)), timeoutMicroseconds: 10_000_000)
                } throws: { ($0 as? RPCError)?.message.contains("takes 1048576") == true }
                let counts = try await Self.oddAnswers(client)
                #expect(counts == [4, 4])
            }
            for bytes in [
                [UInt8](repeating: 0, count: 64),
                Array("GET / HTTP/1.1\r\nHost: x\r\n\r\n".utf8) + Array(repeating: 10, count: 64),
            ] {
                let socket = try #require(RawSocket(port: set.rpcPort))
                socket.send(bytes)
                #expect(socket.receive().contains("not an Ironling peer"))
            }
        }
    }

    /// Values at the edge of their range are odd, and right: how many tokens they give.
    private static func oddAnswers(_ client: RPCClient) async throws -> [Int] {
        var cold = request([1, 2, 3], 4)
        (cold.request.sampling.temperature, cold.request.sampling.topP, cold.request.sampling.minP) = (1e-38, 0, 1)
        cold.request.sampling.repetitionPenalty = 0.01
        var hot = request([1, 2, 3], 4)
        (hot.request.sampling.temperature, hot.request.sampling.presencePenalty) = (100, -100)
        (hot.request.sampling.repetitionPenalty, hot.request.sampling.topK) = (100, .max)
        return [try await tokens(client, cold).count, try await tokens(client, hot).count]
    }

    /// Metadata of generate requests, each wrong in one way, and what its refusal names.
    private static func binaryRefusals() -> [(name: String, word: String, metadata: [UInt8])] {
        func fields(_ body: (inout FieldWriter) -> Void) -> [UInt8] {
            var writer = FieldWriter()
            writer.put(3, array: [UInt32(1), 2, 3])
            body(&writer)
            return writer.bytes
        }
        func text(_ bytes: [UInt8]) -> [UInt8] {
            var writer = FieldWriter()
            writer.put(2, bytes)
            return writer.bytes
        }
        var cases: [(String, String, [UInt8])] = [
            ("no prompt", "prompt", []), ("empty prompt", "prompt is empty", text([])),
            ("not UTF-8", "UTF-8", text([0xC3, 0x28])), ("truncated", "metadata", [1, 0, 0, 0, 9, 0, 0, 0, 1]),
            ("unknown model", "nobody", fields { $0.put(1, "nobody") }),
            ("model not UTF-8", "model", fields { $0.put(1, [0xFF] as [UInt8]) }),
            ("model too long", "model", fields { $0.put(1, String(repeating: "m", count: 2000)) }),
            ("two prompts", "prompt", fields { $0.put(2, "text") }),
            ("no tokens wanted", "max_tokens", fields { $0.put(4, UInt32(0)) }),
            ("too many tokens wanted", "max_tokens", fields { $0.put(4, UInt32.max) }),
            ("more than the context", "context", fields { $0.put(4, UInt32(510)) }),
            ("unknown field that must be understood", "must be understood", fields { $0.put(0x8063, UInt8(1)) }),
            ("field twice", "twice", fields { $0.put(3, array: [UInt32(1)]) }),
            (
                "id out of range", "256",
                {
                    var w = FieldWriter(); w.put(3, array: [UInt32(256)]); return w.bytes
                }()
            ),
            (
                "half an id", "multiple of 4",
                {
                    var w = FieldWriter(); w.put(3, [1, 2, 3] as [UInt8]); return w.bytes
                }()
            ),
            (
                "too many ids", "context",
                {
                    var w = FieldWriter(); w.put(3, array: [UInt32](repeating: 1, count: 262_000)); return w.bytes
                }()
            ),
        ]
        for (tag, name) in [
            (32, "temperature"), (34, "top_p"), (35, "min_p"), (36, "repetition_penalty"), (37, "presence_penalty"),
            (38, "frequency_penalty"),
        ] as [(UInt16, String)] {
            for value in [Float.nan, .infinity, -.infinity, 101, -101] {
                cases.append(("\(name) \(value)", name, fields { $0.put(tag, value) }))
            }
        }
        return cases
    }

    @Test func connectionsThatSayNothingOrHalfOfSomething() async throws {
        try await check { set in
            // Both services wait for ten seconds before they give such a connection up.
            try await onThreadOfItsOwn { try saysNothingOrHalfOfSomething(set) }
        }
    }

    private func saysNothingOrHalfOfSomething(_ set: RunningSet) throws {
        let idle = (0..<1000).compactMap { RawSocket(port: $0 % 2 == 0 ? set.httpPort : set.rpcPort) }
        #expect(idle.count == 1000)
        let halves = [
            (set.httpPort, "GET /v1/models HTTP/1.1\r\nHo"), (set.httpPort, "P"), (set.rpcPort, "IRNL\u{1}\u{1}"),
        ].compactMap { port, text in
            RawSocket(port: port).map { socket in
                socket.send(text)
                return socket
            }
        }
        let answer = try post(set, Array("{\"prompt\":[1],\"max_tokens\":2}".utf8))
        #expect(answer.hasPrefix("HTTP/1.1 200 "), "\(answer.prefix(300))")
        #expect(halves[0].receive().hasPrefix("HTTP/1.1 408 "))
        #expect(halves[1].receive().hasPrefix("HTTP/1.1 408 "))
        #expect(halves[2].receive().contains("handshake took too long"))
        // The binary ones were given up by then; the others may stay idle for a minute.
        #expect(idle[1].receive().contains("handshake took too long"))
        for socket in idle { socket.close() }
    }

    @Test func clientsThatNeverReadOrLeaveInMidStream() async throws {
        try await check { set in
            let body = "{\"prompt\":[1],\"max_tokens\":500,\"stream\":true,\"ignore_eos\":true,\"logprobs\":20}"
            let stream = "POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: \(body.utf8.count)\r\n\r\n\(body)"
            let deaf = try #require(RawSocket(port: set.httpPort, receiveBytes: 4096))
            deaf.send(String(repeating: stream, count: 40))
            let before = try ServiceState(set)
            for round in 0..<12 {
                let leaver = try #require(RawSocket(port: set.httpPort))
                leaver.send(stream)
                #expect(leaver.receive(until: "data: ").hasPrefix("HTTP/1.1 200 "))
                if round % 2 == 0 { leaver.reset() } else { leaver.close() }
                try await set.withClient { client in
                    let stream = try await client.stream(
                        .generate, RPCPayload(metadata: request([1, 2], 400).encoded()), timeoutMicroseconds: 60_000_000
                    )
                    _ = try await stream.next()
                }
            }
            // The deaf one's connection ends although it holds on to it.
            let connections = before.metrics.keys.first { $0.hasSuffix("gateway_http_connections") } ?? ""
            let isCutOff = try await ServiceProcesses.wait(seconds: 60, looking: .milliseconds(200)) {
                try ServiceState(set).metrics[connections] == 1
            }
            #expect(isCutOff)
            withExtendedLifetime(deaf) {}
        }
    }
}

/// Set once, from any thread.
final class Flag: Sendable {
    private let state = Atomic<Bool>(false)

    var isSet: Bool { state.load(ordering: .acquiring) }

    func set() { state.store(true, ordering: .releasing) }
}
