import Checkpoint
import Foundation
import Glibc
import RPC
import Testing
import WireProtocol

/// The storm of `ClusterRoutingTests` through the executables: real sockets, real SIGKILL.
@Suite(.serialized) struct CancelStormTests {
    @Test func killedInstancesLoseNoRequestAndLeaveNothing() async throws {
        let set = try await RunningSet(
            "base", ["--prefill", "2", "--decode", "2", "--experts", "2", "--threads", "1", "--slots", "8"])
        let storm = Storm(seed: 7, count: 300)
        let outcome = try await set.withClient { client in
            let killer = Task(executorPreference: set.loop) { () -> Int in
                var kills = 0
                for part in ["prefill", "decode", "prefill", "decode"] {
                    await set.loop.pause(microseconds: 1_000_000)
                    guard !Task.isCancelled, let victim = set.children(holding: "--role \(part)").first else { break }
                    kills += Glibc.kill(victim, SIGKILL) == 0 ? 1 : 0
                }
                return kills
            }
            let outcome = try await storm.run(client)
            killer.cancel()
            #expect(await killer.value > 0)
            return outcome
        }
        try storm.expectReferenceTokens(outcome)
        let left = try await set.whatIsInUse(ranks: 4)
        #expect(left.isEmpty, "\(left)")
        #expect(set.stop() == 0)
    }
}

extension Storm {
    /// Every token that arrived is the one of an undisturbed run, and every request that was not given up has them all.
    func expectReferenceTokens(_ outcome: Outcome) throws {
        let reference = try GreedyReference(
            Checkpoint(directory: Executables.goldens.appendingPathComponent("base")))
        for index in 0..<Storm.prompts {
            let expected = try reference.tokens(prompt(index), count: Storm.tokens)
            for request in stride(from: index, to: outcome.results.count, by: Storm.prompts) {
                switch outcome.results[request] {
                case .finished(let tokens): #expect(tokens == expected, "request \(request)")
                case .cancelled(let tokens): #expect(tokens.elementsEqual(expected.prefix(tokens.count)))
                case .failed(let error): Issue.record("request \(request): \(error)")
                }
            }
        }
    }
}

extension RunningSet {
    /// Slots, pages and transfers that are not free, once that has had a lease and a few looks to end.
    func whatIsInUse(ranks: Int) async throws -> [String: Int64] {
        try await withClient { [self] client in
            var left: [String: Int64] = [:]
            for _ in 0..<40 {
                let all = try await counters(client)
                left = all.filter { name, value in
                    value != 0
                        && ["_in_use", "_quarantined", "transfers_in_open", "transfers_out_open"]
                            .contains(where: name.hasSuffix)
                }
                let isWhole = (0..<ranks).allSatisfy { all["attention\($0).slots_in_use"] != nil }
                if left.isEmpty, isWhole { return left }
                await loop.pause(microseconds: 250_000)
            }
            return left.isEmpty ? ["an instance that was lost did not come back": 1] : left
        }
    }

    /// Processes of the set whose command line holds `text`.
    func children(holding text: String) -> [Int32] {
        let folder = "/proc"
        return ((try? FileManager.default.contentsOfDirectory(atPath: folder)) ?? []).compactMap(Int32.init).filter {
            pid in
            guard let data = FileManager.default.contents(atPath: "\(folder)/\(pid)/cmdline") else { return false }
            let line = String(decoding: data, as: UTF8.self).split(separator: "\0").joined(separator: " ")
            return line.contains(text) && line.contains("--parent \(processID)")
        }
    }
}
