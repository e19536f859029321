import EventLoop
import Foundation
import Glibc
import ServiceSupport
import TestSupport
import Testing

/// `ironling up` between its first moment and its "ready", as a user meets it.
@Suite(.serialized, .timeLimit(.minutes(4))) struct StartingTests {
    private static let model = Executables.modelFolder("base").path

    /// A listening port of another program.
    private func occupied(_ body: (Int) throws -> Void) async throws {
        let loop = UVLoop()
        loop.start()
        let listener = try await Task(executorPreference: loop) {
            try loop.listen(host: "127.0.0.1", port: 0) { $0.close() }
        }.value
        try body(listener.port)
        loop.stop()
        loop.join()
    }

    @Test(arguments: ["http-port", "rpc-port", "metrics-port"])
    func aPortInUseEndsTheStart(option: String) async throws {
        try await occupied { port in
            var arguments = ["up", "--model", Self.model]
            for name in ["http-port", "rpc-port"] where name != option { arguments += ["--\(name)", "0"] }
            let result = try Executables.ironling(arguments + ["--\(option)", "\(port)"])
            #expect(result.status == 1 && !result.output.contains("ready"), "\(result)")
            #expect(result.error.contains("port \(port) on 127.0.0.1 is in use by another program"), "\(result.error)")
            #expect(result.error.contains("--\(option)"), "\(result.error)")
            #expect(!(result.output + result.error).contains("waiting for"), "what is final is not waited for")
        }
    }

    @Test func aSecondSetIsNeverReadyForTheFirst() async throws {
        let first = try await RunningSet("base")
        let second = try Executables.ironling([
            "up", "--model", Self.model, "--rpc-port", "\(first.rpcPort)", "--http-port", "0",
        ])
        #expect(second.status == 1 && !second.output.contains("ready"), "\(second)")
        #expect(second.error.contains("port \(first.rpcPort) on 127.0.0.1 is in use"), "\(second.error)")
        #expect(try await first.withClient { try await tokens($0, request([1, 2], 4)) }.count == 4)
        #expect(first.stop() == 0)
    }

    /// Processes that have this text among their variables.
    private func marked(_ mark: String) -> [Int32] {
        let ids = (try? FileManager.default.contentsOfDirectory(atPath: "/proc"))?.compactMap { Int32($0) } ?? []
        return ids.filter {
            ServiceProcesses.isAlive($0) && ServiceProcesses.text("/proc/\($0)/environ").contains(mark)
        }
    }

    @Test func nothingIsLeftWheneverItIsStopped() async throws {
        let checkpoint = try GeneratedCheckpoint()
        defer { checkpoint.remove() }
        let before = try Set(FileManager.default.contentsOfDirectory(atPath: "/tmp"))
        for seed in UInt64(1)...20 {
            var generator = SeededRandom(seed: seed)
            let signal = [SIGINT, SIGTERM, SIGKILL][Int(generator.next() % 3)]
            let moment = Int(generator.next() % 1500)
            let mark = "STARTING_TEST=\(UUID().uuidString)"
            let process = Process()
            process.executableURL = Executables.folder.appendingPathComponent("ironling")
            process.arguments = ["up", "--model", checkpoint.folder.path, "--http-port", "0", "--rpc-port", "0"]
            process.environment = ProcessInfo.processInfo.environment.merging([
                "STARTING_TEST": String(mark.dropFirst(14)), "IRONLING_LOG_LEVEL": "error",
            ]) { _, new in new }
            (process.standardOutput, process.standardError) = (FileHandle.nullDevice, FileHandle.nullDevice)
            try process.run()
            try await Task.sleep(for: .milliseconds(moment))
            kill(process.processIdentifier, signal)
            let isGone = await ServiceProcesses.wait(seconds: 2) { marked(mark).isEmpty }
            #expect(isGone, "seed \(seed): signal \(signal) after \(moment) ms left \(marked(mark))")
            process.waitUntilExit()
        }
        let after = try FileManager.default.contentsOfDirectory(atPath: "/tmp").filter { !before.contains($0) }
        #expect(!after.contains { $0.hasPrefix("ironling-") }, "\(after)")
    }

    @Test(arguments: [
        ServiceNews.holds(option: "http-port", port: 8000), .progress("loading 34 %, 12 of 40 GiB"), .progress(""),
        .ready,
    ])
    func newsAreReadAsTheyWereWritten(news: ServiceNews) {
        #expect(ServiceNews(line: news.line) == news)
    }

    @Test(arguments: [
        "", " ", "holds", "holds port", "holds port 0", "holds port 65536", "holds port x", "ready now", "hi",
    ])
    func whatIsNoNewsIsPassedOver(line: String) { #expect(ServiceNews(line: line) == nil) }

    @Test func progressIsShownAtFirstAndThenSeldom() {
        var progress = StartProgress()
        #expect(progress.note("experts 0", "loading 1 %", now: 0) == "experts 0: loading 1 %")
        #expect(progress.note("experts 0", "loading 2 %", now: 1_000_000) == nil)
        #expect(progress.note("attention", "loading 1 %", now: 1_000_000) == "attention: loading 1 %")
        #expect(progress.line == "attention: loading 1 %; experts 0: loading 2 %")
        #expect(progress.note("experts 0", "loading 9 %", now: 10_000_000) == "experts 0: loading 9 %")
        #expect(progress.note("experts 0", "", now: 10_000_001) == nil && progress.line == "attention: loading 1 %")
        _ = progress.note("attention", "", now: 10_000_002)
        #expect(progress.line == nil)
    }
}
