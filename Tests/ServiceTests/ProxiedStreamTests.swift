import AttentionService
import Emulation
import EventLoop
import Foundation
import ServingSimulator
import Testing

/// Streams as a proxy sees them, which gives up one whose head or next byte is long in coming.
@Suite(.serialized, .timeLimit(.minutes(3))) struct ProxiedStreamTests {
    /// When bytes of an answer came, in microseconds since it was asked for. Confined to the client's loop.
    private final class Arrivals: @unchecked Sendable {
        private(set) var times: [UInt64] = []
        private(set) var text = ""
        private(set) var isOver = false
        private let waiters = Waiters()

        func ask(_ cluster: EmulatedCluster, _ body: String) async throws {
            let loop = cluster.clientLoop
            let stream = try await loop.connect(
                host: "memory", port: EmulatedCluster.httpPort, timeoutMicroseconds: 1_000_000)
            let start = loop.now
            stream.start(
                onBytes: { [self] in
                    times.append(loop.now - start)
                    text += String(decoding: $0, as: UTF8.self)
                    if text.hasSuffix("data: [DONE]\n\n\r\n0\r\n\r\n") { finish() }
                }, onClose: { [self] _ in finish() })
            let head = "POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: \(body.utf8.count)\r\n\r\n"
            stream.write(Array((head + body).utf8))
            await waiters.wait { !self.isOver }
            stream.close()
        }

        private func finish() {
            isOver = true
            waiters.wake()
        }

        var longestGap: UInt64 { zip(times, times.dropFirst()).map { $1 - $0 }.max() ?? 0 }
        var comments: Int { text.components(separatedBy: ": ping\n\n").count - 1 }
    }

    /// The slice is so slow here that a prompt takes a minute, and room for all of them comes late.
    @Test(arguments: [(1, 0.005), (24, 0.02)])
    func theHeadComesAtOnceAndSomethingEveryFifteenSeconds(requests: Int, speedup: Double) throws {
        let model = try EmulatedModel("ling-2.6-1t")
        var choice = ServingDeployment.Choice()
        choice.slots = 4
        let serving = try ServingDeployment(shape: model.shape, choice)
        let cluster = try EmulatedCluster(model, serving, speedup: speedup, seed: 11)
        let ids = Array(repeating: "5", count: 6_000).joined(separator: ",")
        let body = "{\"prompt\":[\(ids)],\"max_tokens\":2,\"stream\":true}"
        let all: [Arrivals] = try #require(
            try cluster.network.run(on: cluster.clientLoop) {
                let all = (0..<requests).map { _ in Arrivals() }
                try await withThrowingTaskGroup(of: Void.self) { group in
                    for one in all {
                        group.addTask(executorPreference: cluster.clientLoop) { try await one.ask(cluster, body) }
                    }
                    try await group.waitForAll()
                }
                return all
            }, "nothing happened any more")
        for one in all {
            #expect(one.text.hasPrefix("HTTP/1.1 200 ") && one.text.hasSuffix("data: [DONE]\n\n\r\n0\r\n\r\n"))
            #expect((one.times.first ?? .max) < 1_000_000 && one.longestGap < 15_000_000)
        }
        #expect((all.map(\.comments).max() ?? 0) >= 3, "nothing took long enough to show it")
        try cluster.close()
    }

    /// The same with real sockets and a long prompt, a comment a second.
    @Test func aLongPromptsStreamIsNeverSilent() async throws {
        let set = try await RunningSet(
            named: "ling-2.6-1t",
            ["--mode", "emulate", "--slice", "v7x-16", "--sse-ping", "1", "--log-level", "error"])
        let ids = Array(repeating: "5", count: 120_000).joined(separator: ",")
        let body = "{\"prompt\":[\(ids)],\"max_tokens\":2,\"stream\":true}"
        let socket = try #require(RawSocket(port: set.httpPort))
        socket.send("POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: \(body.utf8.count)\r\n\r\n\(body)")
        let head = socket.receive(until: "\r\n\r\n")
        #expect(head.hasPrefix("HTTP/1.1 200 ") && !head.contains("token_ids"), "the head waits for no token")
        let comment = socket.receive(until: ": ping\n\n")
        #expect(comment.contains(": ping\n\n") && !comment.contains("token_ids"), "nor does a comment")
        #expect(socket.receive(until: "[DONE]").contains("\"token_ids\":["))
        #expect(set.stop() == 0)
    }
}
