import Foundation
import Testing

/// `ironling simulate step` as scripts and people use it.
@Suite struct SimulateStepTests {
    @Test func jsonAddsUpAndIsTheSameTwice() throws {
        let arguments = ["simulate", "step", "--concurrency", "32", "--context", "1536", "--json"]
        let first = try Executables.ironling(arguments)
        #expect(first.status == 0, "\(first.error)")
        #expect(try Executables.ironling(arguments).output == first.output)
        let object = try #require(try JSONSerialization.jsonObject(with: Data(first.output.utf8)) as? [String: Any])
        let layout = try #require(object["colocated"] as? [String: Any])
        for key in ["decode_ms", "prefill_ms"] {
            let parts = try #require(layout[key] as? [String: Double])
            let total = try #require(parts["total"])
            let sum = parts.filter { $0.key != "total" }.values.reduce(0, +)
            #expect(abs(sum - total) < 1e-4, "\(key)")
        }
        #expect(layout["requests_per_rank"] as? Int ?? 0 > 64)
    }

    @Test func allLayoutsEndInAVerdict() throws {
        let result = try Executables.ironling(["simulate", "step", "--layout", "all"])
        #expect(result.status == 0, "\(result.error)")
        #expect(result.output.contains("prefill and decode on slices of their own"))
        #expect(result.output.contains("% requests/s"))
    }

    @Test func requestsThatDoNotFitAreRefusedWithTheSum() throws {
        let result = try Executables.ironling(["simulate", "step", "--concurrency", "4096"])
        #expect(result.status == 1 && result.output.isEmpty)
        #expect(
            result.error.contains("512 × 70 MiB") && result.error.contains("of 86.4 GiB usable HBM"), "\(result.error)")
        let all = try Executables.ironling(["simulate", "step", "--layout", "all", "--concurrency", "512"])
        #expect(all.status == 0 && all.output.contains("does not fit: 128 requests"), "\(all.error)")
    }

    @Test(arguments: [
        ["--layout", "spread"], ["--shape", "ling-9"], ["--concurrency", "0"], ["--context", "-1"], ["--chunk", "63"],
        ["--kernel", "v3"], ["--prompt", "0"], ["--shared-expert", "everywhere"],
    ])
    func refusesWithASentence(arguments: [String]) throws {
        let result = try Executables.ironling(["simulate", "step"] + arguments)
        #expect(result.status == 1 || result.status == 64, "\(result.status)")
        #expect(result.error.hasPrefix("ironling simulate step: ") && result.error.count > 40, "\(result.error)")
        #expect(result.output.isEmpty)
    }

    @Test func brokenCostsAreRefused() throws {
        let result = try Executables.ironling(["simulate", "validate", "--only", "serving", "--costs", "/nonexistent"])
        #expect(result.status == 64 && result.error.contains("--costs"), "\(result.error)")
        let both = try Executables.ironling(["simulate", "validate", "--accept", "/nonexistent"])
        #expect(both.status == 64 && both.error.contains("--only"), "\(both.error)")
    }
}
