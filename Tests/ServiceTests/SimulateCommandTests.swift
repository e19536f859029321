import Foundation
import Testing

/// `ironling simulate moe` as scripts and people use it.
@Suite struct SimulateCommandTests {
    private func object(_ arguments: [String]) throws -> [String: Any] {
        let result = try Executables.ironling(["simulate", "moe", "--json"] + arguments)
        try #require(result.status == 0, "\(result.error)")
        return try #require(try JSONSerialization.jsonObject(with: Data(result.output.utf8)) as? [String: Any])
    }

    @Test func jsonHasTheKeysScriptsRelyOn() throws {
        let object = try object(["--tokens", "512", "--ep", "32", "--slice", "v7x-16"])
        let latency = try #require(object["latency_ms"] as? Double)
        #expect(latency > 0.1 && latency < 0.4)
        let parts = try #require(object["breakdown_ms"] as? [String: Double])
        for key in ["visible_scatter", "visible_gather", "routed_window", "metadata", "shared_exposed", "combine"] {
            #expect(parts[key] != nil, "\(key)")
        }
        #expect(object["fits"] as? Bool == true)
        #expect(abs((object["vmem_mib"] as? Double ?? 0) - 54.9) < 0.05)
        #expect((object["busy"] as? [String: Any])?["matrix"] != nil)
        #expect((object["parameters"] as? [String: Double])?.isEmpty == false)
    }

    /// A report says all of what it is about, so that no part of a call is taken for the whole.
    @Test func theReportNamesEverySwitch() throws {
        let arguments = [
            "--tokens", "64", "--ablate", "weights,matmul", "--routing", "zipf=1.5", "--weights", "bf16", "--prequant",
            "whole", "--active-list", "off",
        ]
        let object = try object(arguments)
        #expect(object["ablate"] as? [String] == ["matmul", "weights"] && object["routing"] as? String == "zipf=1.5")
        #expect(object["weights"] as? String == "bf16" && object["scale_block"] as? String == "none")
        #expect(object["prequant"] as? String == "whole" && object["active_list"] as? Bool == false)
        let text = try Executables.ironling(["simulate", "moe"] + arguments).output
        #expect(text.contains("without   matmul, weights") && text.contains("routing   zipf=1.5, seed 0"), "\(text)")
    }

    /// The stacked bar of the report is honest: its parts are the latency.
    @Test(arguments: [["--kernel", "v1"], ["--kernel", "v2"]])
    func partsAddUpToTheLatency(arguments: [String]) throws {
        let object = try object(arguments + ["--tokens", "512"])
        let parts = try #require(object["breakdown_ms"] as? [String: Double])
        let visible = [
            "launch", "prequantization", "metadata", "visible_scatter", "shared_own", "routed_experts",
            "visible_gather", "combine", "barriers",
        ]
        let sum = visible.reduce(0) { $0 + (parts[$1] ?? .infinity) }
        let latency = try #require(object["latency_ms"] as? Double)
        #expect(sum <= latency * 1.0001 && sum > latency * 0.97, "\(sum) of \(latency)")
    }

    @Test func sameSeedSamePicosecond() throws {
        let arguments = ["simulate", "moe", "--tokens", "256", "--routing", "zipf=1.1", "--seed", "5", "--json"]
        let first = try Executables.ironling(arguments)
        let second = try Executables.ironling(arguments)
        #expect(first.status == 0)
        #expect(first.output == second.output)
    }

    @Test func tileThatDoesNotFitIsRefusedWithTheLimit() throws {
        let result = try Executables.ironling(["simulate", "moe", "--tile", "bts=384,btc=128", "--json"])
        #expect(result.status == 1)
        #expect(
            result.error.contains(
                "needs 62.20 MiB of VMEM, the limit is 60.80 MiB (0.95 of 64): 1.40 MiB too much"), "\(result.error)")
        let object = try JSONSerialization.jsonObject(with: Data(result.output.utf8)) as? [String: Any]
        #expect(object?["fits"] as? Bool == false)
    }

    @Test(arguments: [
        ["--tokens", "0"], ["--tokens", "-1"], ["--tokens", "99999999999999999999"], ["--routing", "zipf=nan"],
        ["--routing", "hotspot=0"], ["--ep", "0"], ["--ep", "64"], ["--slice", "v7x-5"], ["--kernel", "v3"],
        ["--wrap", "maybe"], ["--tile", "bt=0"], ["--tile", "bf=500"], ["--ablate", "everything"],
        ["--kernel", "v1", "--activation-quant", "on"], ["--weights", "bf16", "--activation-quant", "on"],
        ["--hidden", "512"], ["--seed", "-1"], ["--parameters", "/nonexistent"], ["--scale-block", "64"],
        ["--hidden", "9223372036854775807", "--intermediate", "128", "--experts", "32", "--top-k", "2"],
    ])
    func refusesWithASentence(arguments: [String]) throws {
        let result = try Executables.ironling(["simulate", "moe"] + arguments)
        #expect(result.status == 1 || result.status == 64, "\(result.status)")
        #expect(result.error.hasPrefix("ironling simulate moe: ") && result.error.count > 40, "\(result.error)")
        #expect(result.output.isEmpty)
    }

    /// The search never ends with a slower tile than it began with, and leaves the sizes it was given.
    @Test func tuningFindsALegalTileThatIsNoSlower() throws {
        let object = try object(["--tokens", "128", "--tune", "--tile", "bt=8,bf=512"])
        let tuning = try #require(object["tuning"] as? [String: Any])
        let start = try #require(tuning["start_ms"] as? Double)
        let best = try #require(tuning["best_ms"] as? Double)
        #expect(best <= start)
        #expect(abs((object["latency_ms"] as? Double ?? 0) - best) < 1e-5)
        #expect((tuning["simulated"] as? Int ?? 0) > 3)
        let tile = try #require(object["tile"] as? [String: Int])
        #expect(tile["bt"] == 8 && tile["bf"] == 512)
        // The tile that was found is accepted as one that a user gives.
        let text = tile.map { "\($0.key)=\($0.value)" }.joined(separator: ",")
        let again = try self.object(["--tokens", "128", "--tile", text])
        #expect(again["latency_ms"] as? Double == object["latency_ms"] as? Double)
    }

    @Test func tuningSaysWhatItFound() throws {
        let result = try Executables.ironling(["simulate", "moe", "--tokens", "64", "--tune"])
        #expect(result.status == 0, "\(result.error)")
        #expect(result.output.contains(" tiles; "))
    }

    @Test func writesTimelineAndPicture() throws {
        let folder = FileManager.default.temporaryDirectory.appendingPathComponent("simulate-\(UUID().uuidString)")
        try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
        defer { try? FileManager.default.removeItem(at: folder) }
        let (trace, plot) = (folder.appendingPathComponent("f.json"), folder.appendingPathComponent("f.svg"))
        let lanes = folder.appendingPathComponent("t.svg")
        let result = try Executables.ironling([
            "simulate", "moe", "--tokens", "64", "--trace", trace.path, "--plot", plot.path, "--timeline", lanes.path,
        ])
        #expect(result.status == 0, "\(result.error)")
        let timeline = try JSONSerialization.jsonObject(with: Data(contentsOf: trace)) as? [String: Any]
        #expect((timeline?["traceEvents"] as? [Any])?.count ?? 0 > 100)
        let picture = try pictureText(plot)
        #expect(picture.contains("V1") && picture.contains("V2") && picture.contains("time (ms)"))
        let drawing = try pictureText(lanes)
        for lane in ["matrix unit", "HBM → weights [0]", "from peers: scatter landing", "ICI ("] {
            #expect(drawing.contains(lane), "\(lane)")
        }
    }

    private func pictureText(_ file: URL) throws -> String {
        let text = try String(contentsOf: file, encoding: .utf8)
        #expect(text.hasPrefix("<svg ") && text.hasSuffix("</svg>\n"))
        return text
    }

    @Test func aGroupWithoutACommandSaysWhatFollows() throws {
        for (arguments, words) in [
            (["simulate"], "followed by one of moe, pools"), (["simulate", "mow"], "not \"mow\""), (["mow"], "\"mow\""),
        ] {
            let result = try Executables.ironling(arguments)
            #expect(result.status == 64 && result.error.contains(words), "\(result.error)")
            #expect(result.error.split(separator: "\n").count == 1)
        }
    }

    @Test func helpOfTheGroupNamesItsCommands() throws {
        let result = try Executables.ironling(["simulate", "--help"])
        #expect(result.status == 0)
        #expect(result.output.contains("simulate moe") && result.output.contains("simulate validate"))
    }
}

/// `ironling simulate pools`: the published figures of memory.
@Suite struct SimulatePoolsCommandTests {
    @Test func aTrillionParametersAtFourDevices() throws {
        let result = try Executables.ironling(["simulate", "pools", "--tensor-parallel", "4", "--budget", "19GiB"])
        #expect(
            result.output.split(separator: "\n") == [
                "TP 4, padded to 128 lanes: 12.5 KiB per token over 10 MLA layers, "
                    + "70 MiB per request over 70 linear layers",
                "  a budget of 19GiB holds 130 requests (8.96 GiB of recurrent state), 838784 tokens (10 GiB of KV)",
                "TP 4, unpadded: 11.25 KiB per token over 10 MLA layers, 70 MiB per request over 70 linear layers",
                "  a budget of 19GiB holds 130 requests (8.96 GiB of recurrent state), 931968 tokens (10 GiB of KV)",
            ])
    }

    @Test(arguments: [
        ["--budget", "1MiB"], ["--budget", "-1"], ["--budget", "5000TiB"], ["--budget", "1 GiB"], ["--budget", "."],
        ["--tensor-parallel", "3"], ["--ratio", "0", "--budget", "19GiB"], ["--shape", "x"],
        ["--model", "/nonexistent"],
    ])
    func refusesWithASentence(arguments: [String]) throws {
        let result = try Executables.ironling(["simulate", "pools"] + arguments)
        #expect(result.status == 1 || result.status == 64, "\(result.status)")
        #expect(result.error.hasPrefix("ironling simulate pools: ") && result.error.count > 40, "\(result.error)")
    }
}
