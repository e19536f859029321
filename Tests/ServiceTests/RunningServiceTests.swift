import Foundation
import RPC
import Serving
import Testing
import WireProtocol

@Suite(.serialized) struct RunningServiceTests {
    @Test func aRequestKeepsItsBitsAmongEightOthers() async throws {
        let set = try await RunningSet("base", ["--experts", "2"])
        let prompts = (0..<9).map { n in (0..<(10 + 17 * n)).map { UInt32(($0 * 7 + n * 31) % 256) } }
        let alone = try await set.withClient { try await tokens($0, request(prompts[4], 24)) }
        let together = try await set.withClient { client in
            try await withThrowingTaskGroup(of: (Int, [Token]).self) { group in
                for (index, prompt) in prompts.enumerated() {
                    group.addTask(executorPreference: set.loop) {
                        let result = try await tokens(client, request(prompt, 24))
                        return (index, result)
                    }
                }
                var results: [Int: [Token]] = [:]
                for try await (index, result) in group { results[index] = result }
                return results
            }
        }
        #expect(together[4] == alone)
        #expect(together.values.allSatisfy { $0.count == 24 })
        #expect(set.stop() == 0)
    }

    @Test func badRequestsAreRefusedAndNothingIsLeft() async throws {
        let set = try await RunningSet("base")
        try await set.withClient { client in
            for (bad, word) in [
                (request([], 4), "prompt is empty"), (request([1, 999], 4), "999"),
                (request(Array(repeating: 1, count: 510), 40), "context"),
                (GenerateRequest(prompt: .text("hello")), "tokenizer"),
            ] {
                await #expect { try await tokens(client, bad) } throws: {
                    ($0 as? RPCError)?.message.contains(word) == true
                }
            }
            var unknown = request([1], 4)
            unknown.model = "nobody"
            await #expect { try await tokens(client, unknown) } throws: {
                ($0 as? RPCError)?.message.contains("nobody") == true
            }
            var wild = request([1], 4)
            wild.request.sampling.temperature = .nan
            await #expect { try await tokens(client, wild) } throws: {
                ($0 as? RPCError)?.message.contains("temperature") == true
            }
            #expect(try await tokens(client, request([1], 4)).count == 4)
            let after = try await counters(client)
            #expect(after["attention0.slots_in_use"] == 0 && after["attention0.pages_in_use"] == 0)
            #expect(after["attention0.requests_running"] == 0)
        }
        #expect(set.stop() == 0)
    }

    @Test func aClientThatLeavesInMidStreamFreesItsMemory() async throws {
        let set = try await RunningSet("base")
        try await set.withClient { leaver in
            let stream = try await leaver.stream(
                .generate, RPCPayload(metadata: request([1, 2, 3], 480).encoded()), timeoutMicroseconds: 60_000_000)
            _ = try await stream.next()
        }
        try await set.withClient { client in
            // the next request's tokens come after the step that noticed the departure
            var inUse: Int64? = 1
            for _ in 0..<50 where inUse != 0 {
                #expect(try await tokens(client, request([5], 4)).count == 4)
                inUse = try await counters(client)["attention0.slots_in_use"]
            }
            #expect(inUse == 0)
        }
        #expect(set.stop() == 0)
    }
}
