import Foundation
import Testing
import WireProtocol

/// Each service maps what it owns and keeps to the memory it states.
@Suite(.serialized, .timeLimit(.minutes(2))) struct ServiceMemoryTests {
    private struct Footprint {
        /// Bytes of the checkpoint's files that are mapped, and how many mappings.
        var mapped = 0
        var mappings = 0
        var resident = 0

        init(processID: Int32, folder: String) {
            let maps = ServiceProcesses.text("/proc/\(processID)/maps")
            for line in maps.split(separator: "\n") where line.contains(folder) {
                let ends = line.prefix { $0 != " " }.split(separator: "-").compactMap { Int($0, radix: 16) }
                guard ends.count == 2 else { continue }
                mapped += ends[1] - ends[0]
                mappings += 1
            }
            let rollup = ServiceProcesses.text("/proc/\(processID)/smaps_rollup")
            for line in rollup.split(separator: "\n") where line.hasPrefix("Rss:") {
                resident = (Int(line.split(separator: " ")[1]) ?? 0) * 1024
            }
        }
    }

    /// Metrics `weight_bytes`, `state_bytes` and `scratch_bytes` of the services in the order of their ports.
    private func stated(_ set: RunningSet) throws -> [(weights: Int, pools: Int)] {
        try set.metricsPorts.map { port in
            let socket = try #require(RawSocket(port: port))
            socket.send("GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            let lines = socket.receive(until: "refused_total 0").split(whereSeparator: \.isNewline)
            func value(_ name: String) -> Int {
                lines.first { $0.hasPrefix("ironling_") && $0.split(separator: " ")[0].hasSuffix(name) }
                    .flatMap { Int($0.split(separator: " ")[1]) } ?? 0
            }
            return (value("_weight_bytes"), value("_state_bytes") + value("_scratch_bytes"))
        }
    }

    @Test(arguments: ["map", "copy"])
    func residentMemoryStaysWithinWeightsPoolsAndSixtyFourMebibytes(weights: String) async throws {
        let checkpoint = try GeneratedCheckpoint()
        defer { checkpoint.remove() }
        let set = try await RunningSet(
            checkpoint.folder, ["--experts", "2"], environment: ["IRONLING_WEIGHTS": weights], servesMetrics: true)
        let stated = try stated(set)
        #expect(stated.map(\.weights).reduce(0, +) <= checkpoint.byteCount + checkpoint.sharedBytes)
        #expect(stated.map(\.weights).reduce(0, +) >= checkpoint.byteCount - checkpoint.sharedBytes)
        // Every kind of prompt at once, so that all pools and kernels have been used.
        try await set.withClient { client in
            try await withThrowingTaskGroup(of: Int.self) { group in
                for index in 0..<24 {
                    let prompt = (0..<(20 + 40 * index)).map { UInt32(($0 * 31 + index) % 4096) }
                    group.addTask(executorPreference: set.loop) { try await tokens(client, request(prompt, 8)).count }
                }
                for try await count in group { #expect(count == 8) }
            }
        }
        let processes = ServiceProcesses.children(of: set.processID)
        for (index, name) in ["ironling-sampler", "ironling-experts", "ironling-experts", "ironling-attention"]
            .enumerated()
        {
            let process = processes.filter { $0.name == name }.sorted { $0.processID < $1.processID }[
                index == 2 ? 1 : 0]
            let footprint = Footprint(processID: process.processID, folder: checkpoint.folder.lastPathComponent)
            let limit = stated[index].weights + stated[index].pools + 64 << 20
            #expect(footprint.resident <= limit, "\(name): \(footprint.resident) of \(limit)")
            // Weights are copied, or mapped. A mapping begins and ends on a page, and holds small tensors of others that
            // lie between its own.
            let slack = footprint.mappings * 3 * 4096
            let isOwn = footprint.mapped >= stated[index].weights && footprint.mapped <= stated[index].weights + slack
            #expect(
                footprint.mapped == 0 || isOwn, "\(name) maps \(footprint.mapped), owns \(stated[index].weights)")
        }
        let gateway = try #require(processes.first { $0.name == "ironling-gateway" })
        let footprint = Footprint(processID: gateway.processID, folder: checkpoint.folder.lastPathComponent)
        #expect(footprint.mapped == 0 && footprint.resident <= 64 << 20, "\(footprint)")
        #expect(set.stop() == 0)
    }
}
