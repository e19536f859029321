import Foundation
import Testing

/// `ironling simulate serve` as scripts and people use it.
@Suite struct SimulateServeTests {
    private static let load = [
        "--num-prompts", "40", "--input-len", "1024", "--output-len", "64", "--max-concurrency", "16",
    ]

    private func run(_ arguments: [String]) throws -> (status: Int32, output: String, error: String) {
        let result = try Executables.ironling(["simulate", "serve"] + arguments)
        return (result.status, result.output, result.error)
    }

    private func object(_ arguments: [String]) throws -> [String: Any] {
        let result = try run(arguments + ["--json"])
        try #require(result.status == 0, "\(result.error)")
        return try #require(try JSONSerialization.jsonObject(with: Data(result.output.utf8)) as? [String: Any])
    }

    @Test func jsonHasTheKeysOfALoadAndTheSlices() throws {
        let object = try object(Self.load)
        #expect(object["completed"] as? Int == 40 && object["total_output_tokens"] as? Int == 40 * 64)
        #expect(object["max_concurrency"] as? Int == 16 && object["backend"] as? String == "simulate")
        for key in ["mean_ttft_ms", "p99_tpot_ms", "median_itl_ms", "mean_e2e_latency_ms", "output_throughput"] {
            #expect((object[key] as? Double ?? 0) > 0, "\(key)")
        }
        let slice = try #require((object["slices"] as? [[String: Any]])?.first)
        let steps = try #require(slice["steps"] as? [String: [String: Any]])
        for kind in ["prefill", "decode"] {
            let parts = try #require(steps[kind]?["components_ms"] as? [String: Double])
            let total = try #require(steps[kind]?["total_ms"] as? Double)
            #expect(abs(parts.values.reduce(0, +) - total) < total * 1e-9 && (parts["experts"] ?? 0) > 0)
        }
        let memory = try #require((object["memory"] as? [[String: Any]])?.first)
        let parts = try #require(memory["parts"] as? [String: Int])
        #expect(parts.values.reduce(0, +) == memory["total_bytes"] as? Int)
    }

    @Test func sameOptionsAndSeedSameBytes() throws {
        let folder = FileManager.default.temporaryDirectory.appendingPathComponent("serve-\(UUID().uuidString)")
        try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
        defer { try? FileManager.default.removeItem(at: folder) }
        func files(_ name: String) throws -> [Data] {
            let paths = ["trace", "plot", "report"].map { folder.appendingPathComponent("\(name).\($0)") }
            let result = try run(
                Self.load + [
                    "--request-rate", "3", "--random-range-ratio", "0.5", "--cancellation-rate", "0.2", "--trace",
                    paths[0].path, "--plot", paths[1].path, "--report", paths[2].path,
                ])
            #expect(result.status == 0, "\(result.error)")
            return try [Data(result.output.utf8)] + paths.map { try Data(contentsOf: $0) }
        }
        let (one, two) = (try files("one"), try files("two"))
        #expect(one == two)
        let trace = try JSONSerialization.jsonObject(with: one[1]) as? [String: Any]
        #expect((trace?["traceEvents"] as? [Any])?.count ?? 0 > 100)
        let picture = String(decoding: one[2], as: UTF8.self)
        #expect(picture.hasPrefix("<svg ") && picture.hasSuffix("</svg>\n") && picture.contains("Time to first token"))
        #expect(String(decoding: one[3], as: UTF8.self).contains("GLA prefill"))
    }

    @Test func prefillAndDecodeMayHaveSlicesOfTheirOwn() throws {
        let object = try object(Self.load + ["--slice", "v7x-8", "--prefill", "1", "--decode", "1"])
        let slices = try #require(object["slices"] as? [[String: Any]])
        #expect(object["completed"] as? Int == 40 && slices.count == 2)
        #expect((slices[0]["sent_bytes"] as? Int ?? 0) > 40 * (280 << 20))
        #expect((slices[0]["steps"] as? [String: Any])?.keys.sorted() == ["prefill"])
        #expect((slices[1]["steps"] as? [String: Any])?.keys.sorted() == ["decode"])
    }

    @Test func aFoldersShapeWillDo() throws {
        let object = try object(
            Self.load + [
                "--model", Executables.modelFolder("base").path, "--slice", "v7x-4", "--tp", "2", "--prefill-chunk",
                "512",
            ])
        #expect(object["completed"] as? Int == 40 && object["model"] as? String == "base")
    }

    @Test(arguments: [
        ["--slice", "v7x-4"], ["--slice", "v7x-5"], ["--layout", "sideways"], ["--tp", "3"], ["--kernel", "v3"],
        ["--step-policy", "none"], ["--slots", "3000"], ["--kv-tokens", "64000000"], ["--prefill", "1"],
        ["--attention", "0"], ["--input-len", "0"], ["--input-len", "200000", "--kv-tokens", "100000"],
        ["--model", "nobody"], ["--prefill-chunk", "100"], ["--num-prompts", "0"], ["--dataset-name", "trace"],
        ["--seed", "-1"], ["--send-gap", "nan"],
    ])
    func refusesWithASentence(arguments: [String]) throws {
        let result = try run(arguments)
        #expect(result.status == 1 || result.status == 64, "\(result.status)")
        #expect(result.error.hasPrefix("ironling simulate serve: ") && result.error.count > 40, "\(result.error)")
        #expect(result.output.isEmpty)
    }

    @Test func whatDoesNotFitTheMemoryIsRefusedWithTheSum() throws {
        let result = try run(["--slice", "v7x-4"])
        #expect(
            result.error.contains("routed experts 114.1 GiB") && result.error.contains("too much"), "\(result.error)")
    }
}
